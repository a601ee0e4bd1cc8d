"""Broken and odd inputs made of phantoms, what should come of each, and a runner that counts.

    python Testing/hostile_inputs.py [FOLDER]

makes all of them in a new folder, runs every command that fits on each in a process of its own, and
prints a table: inputs, handled right, refused in one sentence, and the columns that must be zero.
`Testing/test_hostile_inputs.py` reads them in one process, and runs the commands among
the slow tests.
"""

import gzip
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile_makers import (
    CT_PICTURE,
    SECRETS,
    Hostile,
    both,
    cut,
    damage,
    deflate_bomb,
    file,
    lengthen,
    lengthen_packed,
    loop,
    other_half,
    overlap,
    patch,
    pipe,
    raw,
    renamed,
    repack,
    series,
    series_folder,
    set_apart,
    stranger,
    swap,
    twelve_bits,
    unknown,
    volume,
    with_nan,
    without,
)

TIMEOUT_S = 120
MEMORY_KIB = 3 << 20

BAD = ("traceback", "crash", "hang", "silent wrong", "outside", "leak", "over 3 GB")
"""Columns of the table that must be zero."""

INPUTS: tuple[Hostile, ...] = (
    Hostile("good", "series", series(), "same"),
    Hostile("good", "nifti", volume(".nii.gz"), "same"),
    *(
        Hostile("spelling", f"rescale type {text!r}", series(RescaleType=text), "same")
        for text in (
            "hu",
            "Hounsfield Units",
            "HOUNSFIELD",
            "US",
            "UNSPECIFIED",
            "normalized",
            "H.U.",
        )
    ),
    *(
        Hostile("spelling", f"modality {text!r}", series(Modality=text), "same")
        for text in ("ct", "Ct", "CAT", "", None)
    ),
    *(
        Hostile("spelling", f"character set {text!r}", series(SpecificCharacterSet=text), "same")
        for text in ("ISO IR 192", "latin1", "ISO_IR 999", ["ISO_IR 100", "ISO 2022 IR 87"])
    ),
    *(
        Hostile("identity", f"{keyword} {text!r}", series(None, **{keyword: text}), "same")
        for keyword, text in (
            ("PatientSex", "Male"),
            ("StudyDate", "yesterday"),
            ("StudyTime", "12:30"),
            ("PatientAge", "forty"),
            ("PatientID", "=1+1\x1b[31m"),
        )
    ),
    *(
        Hostile(
            "stranger",
            f"{name} of modality {modality}",
            stranger(f"{name}.dcm", SOPClassUID=uid, Modality=modality),
            "noted",
            "left out",
        )
        for name, modality, uid in (
            ("000_sr", "SR", "1.2.840.10008.5.1.4.1.1.88.67"),
            ("zz_rtstruct", "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3"),
            ("000_pr", "PR", "1.2.840.10008.5.1.4.1.1.11.1"),
            ("zz_ko", "KO", "1.2.840.10008.5.1.4.1.1.88.59"),
            ("000_raw", "CT", "1.2.840.10008.5.1.4.1.1.66"),
            ("zz_siemens", "CT", "1.3.12.2.1107.5.9.1"),
            ("000_seg", "SEG", "1.2.840.10008.5.1.4.1.1.66.4"),
        )
    ),
    Hostile(
        "stranger",
        "a screen save",
        stranger("zz.dcm", ImageType=["DERIVED", "SECONDARY"], **CT_PICTURE),
        "noted",
        "left out",
    ),
    Hostile(
        "stranger",
        "a scout",
        stranger("000.dc", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **CT_PICTURE),
        "noted",
        "left out",
    ),
    Hostile(
        "stranger",
        "AppleDouble",
        file(
            lambda f: (
                [(f / f"._{k:03}.dcm").write_bytes(b"\0\5\x16\7" + bytes(99)) for k in range(24)]
                and f
            )
        ),
        "same",
    ),
    Hostile(
        "stranger",
        "a text file",
        file(lambda f: (f / "readme.txt").write_text("hello")),
        "same",
    ),
    *(
        Hostile("damage", f"an unknown representation of {keyword}", file(unknown(tag)), *expect)
        for keyword, tag, expect in (
            ("PatientName", b"\x10\0\x10\0PN", ("same",)),
            ("Manufacturer", b"\x08\0\x70\0LO", ("same",)),
            ("PixelSpacing", b"\x28\0\x30\0DS", ("refused", "no Pixel Spacing")),
        )
    ),
    Hostile("damage", "a header cut", file(damage(None)), "refused", "011.dcm is damaged"),
    Hostile("damage", "an empty file", file(damage(b"")), "refused", "011.dcm is damaged"),
    Hostile("damage", "zeros", file(damage(bytes(3000))), "refused", "011.dcm is damaged"),
    Hostile("damage", "pixels cut", file(lambda f: cut(0.8)(f / "011.dcm")), "refused", "011.dcm"),
    Hostile(
        "damage",
        "a slice missing",
        file(without(11)),
        "refused",
        "lacks 1 slice",
    ),
    Hostile(
        "damage",
        "two slices missing",
        file(without(11, 12)),
        "refused",
        "lacks 2 slices",
    ),
    Hostile("mixed", "two patients", series(other_half(PatientID="X1")), "refused", "two patients"),
    Hostile(
        "mixed", "two names", series(other_half(PatientName="Else^Joe")), "refused", "two patients"
    ),
    Hostile(
        "mixed",
        "two studies",
        series(other_half(StudyInstanceUID="1.2.3")),
        "refused",
        "two studies",
    ),
    Hostile(
        "mixed",
        "two frames of reference",
        series(other_half(FrameOfReferenceUID="1.2.3")),
        "refused",
        "frames of reference",
    ),
    Hostile(
        "mixed",
        "two kernels",
        series(lambda i, k: setattr(i, "ConvolutionKernel", "B70f" if k > 11 else "B30f")),
        "noted",
        "kernels",
    ),
    Hostile("mixed", "one SOP UID", series(SOPInstanceUID="1.2.3.4"), "noted", "SOP Instance UID"),
    Hostile(
        "mixed",
        "two acquisitions that overlap",
        file(overlap),
        "refused",
        "overlap from",
    ),
    Hostile("mixed", "the slice distance", series(set_apart), "refused", "slice distance"),
    Hostile("values", "an offset of 1024 in DICOM", series(raw), "refused", "not CT in HU"),
    Hostile(
        "values",
        "an offset of 1024",
        volume(".nrrd", image=lambda i: i + 1024),
        "refused",
        "not CT in HU",
    ),
    Hostile("values", "bits at the upper end", series(lambda i, _: twelve_bits(i)), "same"),
    Hostile(
        "values",
        "too many pixels",
        series(lambda i, _: setattr(i, "PixelData", i.PixelData * 2)),
        "refused",
        "bytes of pixel data",
    ),
    Hostile(
        "values", "a thousand times too many rows", series(Rows=65535), "refused", "65535 rows"
    ),
    Hostile("values", "a slope of 1e-6", series(RescaleSlope=1e-6), "refused", "Rescale Slope"),
    Hostile("values", "a slope of 1e30", series(RescaleSlope=1e30), "refused", "Rescale Slope"),
    Hostile(
        "values",
        "another intercept in one slice",
        series(lambda i, k: setattr(i, "RescaleIntercept", -1023 if k == 7 else -1024)),
        "noted",
        "Rescale Intercept differs",
    ),
    Hostile(
        "values",
        "a palette of colours",
        series(PhotometricInterpretation="PALETTE COLOR"),
        "refused",
        "colour",
    ),
    *(
        Hostile("values", f"no {keyword}", series(**{keyword: None}), "same")
        for keyword in ("PhotometricInterpretation", "SamplesPerPixel", "BitsStored", "HighBit")
    ),
    Hostile(
        "values",
        "no PixelRepresentation",
        series(PixelRepresentation=None),
        "refused",
        "no Pixel Representation",
    ),
    *(
        Hostile(
            "values",
            f"one slice too many in {suffix}",
            volume(suffix, change),
            "refused",
            "holds more than",
        )
        for suffix, change in ((".mha", lengthen), (".nii.gz", lengthen_packed))
    ),
    Hostile(
        "values",
        "scaled by its header",
        volume(".mha", swap(b"NDims = 3", b"ElementToIntensityFunctionSlope = 2\nNDims = 3")),
        "refused",
        "to be scaled",
    ),
    Hostile("values", "NaN", volume(".nrrd", image=with_nan), "noted", "NaN or infinite"),
    Hostile(
        "spacing",
        "metres",
        volume(".nii", both(patch(80, "<f4", [0.0056, 0.0056, 0.0125]), patch(254, "<i2", 0))),
        "refused",
        "metres or microns",
    ),
    Hostile(
        "spacing",
        "microns",
        volume(".nrrd", swap(b"(5.5999999999999996,0,0)", b"(5600,0,0)")),
        "refused",
        "5600",
    ),
    Hostile(
        "spacing",
        "zero",
        volume(".mha", swap(b"Spacing = 5.5999999999999996", b"Spacing = 0")),
        "refused",
        "voxels of 0",
    ),
    Hostile(
        "spacing",
        "none",
        volume(".nrrd", swap(b"space directions", b"# space directions")),
        "refused",
        "how large",
    ),
    Hostile(
        "spacing",
        "pixel spacing in metres",
        series(PixelSpacing=[0.0056, 0.0056]),
        "refused",
        "0.0056",
    ),
    Hostile(
        "spacing",
        "negative",
        volume(".mha", swap(b"Spacing = 5.5999999999999996", b"Spacing = -5.6")),
        "refused",
        "-5.6",
    ),
    Hostile(
        "spacing",
        "a kilometre away",
        volume(".nrrd", swap(b"space origin: (-176.39", b"space origin: (-1000176.39")),
        "refused",
        "farther away",
    ),
    Hostile(
        "spacing",
        "sheared",
        volume(".nrrd", swap(b"(0,0,12.5)", b"(0,1,12.5)")),
        "refused",
        "not perpendicular",
    ),
    Hostile(
        "spacing",
        "qform and sform",
        volume(".nii", patch(76, "<f4", -1.0)),
        "refused",
        "contradict",
    ),
    Hostile("name", "capitals", volume(".nrrd", renamed("CT.NRRD")), "same"),
    Hostile("name", "packed but called .nii", volume(".nii.gz", repack), "same"),
    Hostile("name", "MetaImage called .nrrd", volume(".mha", renamed("x.nrrd")), "same"),
    Hostile(
        "name", "not UTF-8", volume(".nii.gz", renamed(os.fsdecode(b"gr\xf6\xdfe.nii.gz"))), "same"
    ),
    *(
        Hostile(
            "header", f"{old.decode()} → {new.decode()}", volume(".mha", swap(old, new)), "refused"
        )
        for old, new in (
            (b"= LOCAL", b"= %s%n"),
            (b"= LOCAL", b"= LIST"),
            (b"= LOCAL", b"= /dev/zero"),
            (b"NDims = 3", b"NDims = -1"),
            (b"NDims = 3", b"NDims = 1000000"),
            (b"DimSize = 64", b"DimSize = 6400000000"),
            (b"DimSize = 64", b"DimSize = -64"),
        )
    ),
    *(
        Hostile("header", f"{suffix} cut to {share:.0%}", volume(suffix, cut(share)), "refused")
        for suffix in (".mha", ".nrrd", ".nii", ".nii.gz")
        for share in (0, 0.001, 0.01, 0.9)
    ),
    Hostile(
        "bomb",
        "a header of 16 GB",
        volume(".nrrd", swap(b"sizes: 64 64 24", b"sizes: 2000 2000 2000")),
        "refused",
    ),
    Hostile(
        "bomb",
        "gzip in gzip",
        volume(
            ".nii.gz", lambda p: p.write_bytes(gzip.compress(gzip.compress(bytes(1 << 26)))) and p
        ),
        "refused",
    ),
    Hostile("bomb", "deflated DICOM", file(deflate_bomb), "noted", "Damaged"),
    Hostile(
        "bomb",
        "a sparse terabyte",
        volume(".nii", lambda p: os.truncate(p, 1 << 40)),
        "refused",
        "almost empty",
    ),
    Hostile(
        "file",
        "a pipe",
        volume(".nrrd", pipe),
        "refused",
        "regular",
    ),
    Hostile(
        "file",
        "a web page",
        volume(".nrrd", lambda p: p.write_text("<html>")),
        "refused",
        "web page",
    ),
    *(
        Hostile(
            "file",
            f"voxels in {name}",
            volume(".mha", swap(b"= LOCAL", f"= {name}".encode())),
            "refused",
            "in another folder",
        )
        for name in ("../../../etc/passwd", "/etc/passwd", "sub/../../x.raw")
    ),
    Hostile(
        "file",
        "a zip file",
        lambda folder: Path(shutil.make_archive(str(folder / "ct"), "zip", series_folder())),
        "refused",
        "unpack it",
    ),
    Hostile(
        "file",
        "a folder with a zip file",
        lambda folder: Path(shutil.make_archive(str(folder / "ct"), "zip", series_folder())).parent,
        "refused",
        "unpack ct.zip",
    ),
    Hostile("file", "a loop of links", file(loop), "same"),
    Hostile("file", "nothing", lambda folder: folder / "missing.nrrd", "refused", "does not exist"),
    Hostile("file", "an empty folder", lambda folder: folder, "refused", "no DICOM"),
)


def commands(one: Hostile, source: Path, output: Path) -> Iterator[tuple[str, list[str]]]:
    """The command lines that fit an input; `run` where it is refused or good, as it takes long."""
    if source.is_dir():
        yield "CTSliceTools", ["series", str(source)]
        yield "CTSliceTools", ["organize", str(source), str(output / "organized")]
    yield "CTSliceTools", ["predict", str(source), "-o", str(output / "x.json"), "--no-plot"]
    if one.expect == "refused" or one.kind == "good":
        yield "LungNoduleSeg", ["run", str(source), "-o", str(output / "run")]


def outcome(one: Hostile, module: str, command: list[str], watched: Path) -> tuple[str, str]:
    """Run a command on an input: the column it counts in, and what it printed."""
    before = _tree(watched)
    began = time.monotonic()
    with tempfile.TemporaryFile() as text:
        process = os.fork()  # what the commands import is there already
        if not process:
            _child(module, command, text.fileno())
        while True:
            pid, status, usage = os.wait4(process, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - began > TIMEOUT_S:
                os.killpg(process, signal.SIGKILL)
                os.wait4(process, 0)
                return "hang", ""
            time.sleep(0.02)
        text.seek(0)
        said = text.read().decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status)
    sentences = [line for line in said.splitlines() if line.startswith("Error: ")]
    refused = code == 2 and len(sentences) == 1 and sentences[0].endswith(".")
    reads = command[0] in ("run", "predict")
    faults = {
        "traceback": "Traceback (most recent call last)" in said or "Internal error" in said,
        "crash": code < 0 or (code not in (0, 1) and not refused),
        "over 3 GB": usage.ru_maxrss > MEMORY_KIB,
        "outside": _tree(watched) != before,
        "leak": any(secret in said for secret in SECRETS) or "\x1b[31m" in said,
        "silent wrong": reads and one.expect == "refused" and not refused,
        "refused but good": reads and one.expect != "refused" and refused,
    }
    bad = next((name for name, is_so in faults.items() if is_so), None)
    return bad or ("refused" if refused else "right"), said


def _child(module: str, command: list[str], text: int) -> None:
    """Be the command, in a process that was forked for it."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(text, stream)
    sys.argv = [module, *command]
    code: Any = 1
    try:
        importlib.import_module(f"{module}Lib.cli").main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def main(folder: Path) -> int:
    """Make all inputs, run all commands, print the table; returns how many came out badly."""
    columns: Counter[str] = Counter()
    for name in ("CTSliceToolsLib.cli", "LungNoduleSegLib.cli", "LungNoduleSegLib.segmenter"):
        importlib.import_module(name)
    for number, one in enumerate(INPUTS):
        place, output = folder / f"{number:03}" / "in", folder / f"{number:03}" / "out"
        place.mkdir(parents=True)
        output.mkdir()
        source = one.make(place)
        for module, command in commands(one, source, output):
            column, said = outcome(one, module, command, place)
            columns[column] += 1
            if column not in ("right", "refused"):
                print(f"{column}: {one.kind}, {one.name}: {command[0]}\n{said[-600:]}")
    bad = {name: columns[name] for name in (*BAD, "refused but good")}
    rows = {"inputs": len(INPUTS), "runs": columns.total(), "handled right": columns["right"]}
    for name, count in (rows | {"refused in one sentence": columns["refused"]} | bad).items():
        print(f"{name:<26}{count:>6}")
    return sum(bad.values())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="hostile-"))
    sys.exit(min(main(target), 1))
