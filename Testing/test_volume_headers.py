"""Headers of volume files are judged before their voxels are read, whatever they claim."""

import gzip
import os
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.volume_files import read_labels, volume_size
from CTLungScreeningLib.reading.volume_headers import UNKNOWN_ORIENTATION

SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz")
KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")


def ct(spacing: tuple[float, float, float] = (5.0, 5.5, 6.0)) -> sitk.Image:
    """A ball of tissue in air."""
    z, y, x = np.indices((12, 20, 24)) - np.array([6, 10, 12])[:, None, None, None]
    hu = np.where(x * x + y * y + z * z * 4 < 80, 40, -990).astype(np.int16)
    hu[:, :1] = -700
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing)
    image.SetOrigin((-60, -50, 20))
    return image


def edited(file: Path, old: bytes, new: bytes) -> Path:
    """Change a header; the length of a NIfTI stays."""
    content = file.read_bytes()
    assert content.count(old) >= 1, old
    file.write_bytes(content.replace(old, new, 1))
    return file


def written(tmp_path: Path, suffix: str, **options: Any) -> Path:
    sitk.WriteImage(ct(), tmp_path / f"ct{suffix}", **options)
    return tmp_path / f"ct{suffix}"


def refusal(file: Path, read: Any = read_ct) -> str:
    with pytest.raises(InputError) as error:
        read(file)
    sentence = str(error.value)
    assert sentence.endswith(".") and "\n" not in sentence and str(file.parent) in sentence
    assert all(c.isprintable() for c in sentence)
    return sentence


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    kind=st.sampled_from(KINDS),
    packed=st.booleans(),
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 15)] * 3),
    origin=st.tuples(*[st.floats(-900, 900)] * 3),
    seed=st.integers(0, 99),
)
def test_every_format_is_read_as_itk_reads_it(
    tmp_path: Path, suffix: str, kind: str, packed: bool, turn: Any, spacing: Any, origin: Any,
    seed: int,
) -> None:  # fmt: skip
    values = np.random.default_rng(seed).integers(0, 100, (3, 4, 5)).astype(kind)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(Rotation.from_rotvec(turn).as_matrix().ravel().tolist())
    # ITK reads x.nii when asked for x.nii.gz beside it.
    file = tmp_path / f"{suffix.replace('.', '')}{suffix}"
    sitk.WriteImage(image, file, useCompression=packed)
    ours, itks = read_labels(file), sitk.ReadImage(file)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(itks), strict=True
    )
    np.testing.assert_allclose(ours.GetSpacing(), itks.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(ours.GetOrigin(), itks.GetOrigin(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ours.GetDirection(), itks.GetDirection(), atol=1e-5)
    assert volume_size(file) == (5, 4, 3)


def test_real_files_are_read_as_itk_reads_them(shared_data: Path) -> None:
    files = [*shared_data.glob("lidc_nodules/*/*_R_1.nii.gz"), *shared_data.glob("chest_low*/*")]
    for file in files[:40]:
        ours, itks = read_labels(file), sitk.ReadImage(file)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(itks))
        np.testing.assert_allclose(ours.GetOrigin(), itks.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(ours.GetDirection(), itks.GetDirection(), atol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_a_refusal_or_a_volume(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    file = tmp_path / f"x{suffix}"
    whole = tmp_path / f"whole{suffix}"
    if not whole.exists():
        sitk.WriteImage(ct(), whole)
        sitk.WriteImage(ct(), file)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(len(content), 560) - 1))
        content[place : place + 1] = data.draw(
            st.sampled_from([b"%n", b"-1", b"9e9", b"\0", b"\xff", b"nan", b"\n", b"=", b" ", b""])
        )
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read_labels(file)
    except InputError as error:
        assert str(error).endswith(".")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"ElementDataFile = LOCAL", b"ElementDataFile = %s%n"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = LIST"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = gone.raw"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = /dev/zero"),
        (b"NDims = 3", b"NDims = -1"),
        (b"NDims = 3", b"NDims = 1000000"),
        (b"NDims = 3", b"NDims = many"),
        (b"DimSize = 24 20 12", b"DimSize = 24 20 -12"),
        (b"DimSize = 24 20 12", b"DimSize = 99999999 99999999 99999999"),
        (b"DimSize = 24 20 12", b"DimSize = 24000 24000 24000"),
        (b"ElementSpacing = 5 5.5 6", b"ElementSpacing = 5 5.5 0"),
        (b"ElementSpacing = 5 5.5 6", b"ElementSpacing = 5 5.5 nan"),
        (b"ElementSpacing = 5 5.5 6\n", b""),
        (b"MET_SHORT", b"MET_SHIRT"),
    ],
)
def test_a_hostile_metaimage_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    refusal(edited(written(tmp_path, ".mha"), old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"sizes: 24 20 12", b"sizes: 24 20 99999999", "a size of"),
        (b"encoding: raw", b"encoding: hex", "text (hex)"),
        (b"encoding: raw", b"encoding: raw\ndata file: LIST", "several files"),
        (b"encoding: raw", b"encoding: raw\ndata file: slice%03d.raw 1 9 1", "several files"),
        (b"space directions", b"# space directions", "how large its voxels are"),
        (b"kinds: domain", b"space units: \"furlong\" \"mm\" \"mm\"\nkinds: domain", "furlong"),
        (b"type: short", b"type: block", "block"),
        (b"(5,0,0)", b"(nan,0,0)", "how large its voxels are"),
        (b"(5,0,0)", b"(0,0,0)", "voxels of 0"),
    ],
)  # fmt: skip
def test_a_hostile_nrrd_is_refused(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    assert words in refusal(edited(written(tmp_path, ".nrrd"), old, new))


@pytest.mark.parametrize(
    "name", ["../x.raw", "/x.raw", "C:x.raw", r"C:\x.raw", r"\x.raw", r"\\host\x.raw", "a/NUL.raw"]
)
@pytest.mark.parametrize("suffix", [".nrrd", ".mhd"])
def test_a_header_names_no_file_elsewhere_on_any_system(
    suffix: str, name: str, tmp_path: Path
) -> None:
    field = b"encoding: raw\n" if suffix == ".nrrd" else b"ElementDataFile = ct.raw"
    key = "encoding: raw\ndata file: {}\n" if suffix == ".nrrd" else "ElementDataFile = {}"
    file = edited(written(tmp_path, suffix), field, key.format(name).encode())
    assert "in another folder" in refusal(file)


def test_a_header_may_name_its_own_folder(tmp_path: Path) -> None:
    file = edited(written(tmp_path, ".mhd"), b"= ct.raw", b"= ./ct.raw")
    assert read_ct(file).image.GetSize() == ct().GetSize()


@pytest.mark.parametrize(
    ("unit", "factor"), [("cm", 10.0), ("m", 1000.0), ("µm", 1e-3), ("um", 1e-3), ("mm", 1.0)]
)
@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior"])
def test_space_units_of_a_nrrd_hold_for_voxels_and_place(
    tmp_path: Path, unit: str, factor: float, space: str
) -> None:
    file, image = written(tmp_path, ".nrrd"), ct()
    flips = [1, 1, 1] if space.startswith("left") else [-1, -1, 1]
    *axes, origin = (
        f"({','.join(map(str, vector))})"
        for vector in (
            *np.diag(image.GetSpacing()) * flips / factor,
            np.multiply(image.GetOrigin(), flips) / factor,
        )
    )
    edited(file, b"left-posterior-superior", space.encode())
    edited(file, b"(5,0,0) (0,5.5,0) (0,0,6)", " ".join(axes).encode())
    edited(file, b"(-60,-50,20)", origin.encode())
    edited(file, b"kinds:", f'space units: "{unit}" "{unit}" "{unit}"\nkinds:'.encode())
    read = read_ct(file).image
    np.testing.assert_allclose(read.GetSpacing(), image.GetSpacing())
    np.testing.assert_allclose(read.GetOrigin(), image.GetOrigin())


def test_units_of_the_axes_of_a_nrrd_hold_for_voxels(tmp_path: Path) -> None:
    file = written(tmp_path, ".nrrd")
    edited(file, b"dimension: 3", b"dimension: 4")
    edited(file, b"sizes: ", b"sizes: 1 ")
    edited(file, b"space: left-posterior-superior\n", b"")
    edited(file, b"space directions: (5,0,0) (0,5.5,0) (0,0,6)", b"spacings: nan 0.5 0.55 0.6")
    edited(file, b"space origin: (-60,-50,20)", b'units: "ms" "cm" "cm" "cm"')
    edited(file, b"kinds: ", b"kinds: list ")
    np.testing.assert_allclose(read_ct(file).image.GetSpacing(), (5, 5.5, 6))


def nifti(tmp_path: Path, **changes: tuple[int, str, Any]) -> Path:
    """A NIfTI with values changed at places of its header (offset, dtype, value)."""
    file = written(tmp_path, ".nii")
    content = bytearray(file.read_bytes())
    for place, kind, value in changes.values():
        raw = np.array(value, kind).tobytes()
        content[place : place + len(raw)] = raw
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((76 + 4, "<f4", [0.005, 0.0055, 0.006]), "metres or microns"),
        ((76 + 4, "<f4", [5000, 5500, 6000]), "metres or microns"),
        ((76 + 4, "<f4", [5, 5.5, 0]), "voxels of"),
        ((76 + 4, "<f4", [5, 5.5, np.nan]), "voxels of"),
        ((76 + 4, "<f4", [5, 5.5, 19.9]), "contradict"),
        ((40, "<i2", [3, 24, 20, -3]), "a size of"),
        ((40, "<i2", [9, 24, 20, 12]), "9 dimensions"),
        ((40, "<i2", [3, 24, 20, 13]), "cut short"),
        ((70, "<i2", 128), "NIfTI type 128"),
        ((344, "S3", b"ni1"), "another file"),
    ],
)
def test_a_hostile_nifti_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    changes = {"change": change}
    if "contradict" not in words and change[0] == 80:
        changes["sform"] = (254, "<i2", 0)
    assert words in refusal(nifti(tmp_path, **changes))


def test_metres_and_microns_that_are_named_are_read(tmp_path: Path) -> None:
    for name, unit, scale in (("m", 1, 1e-3), ("um", 3, 1e3)):
        (tmp_path / name).mkdir()
        spacing = np.array([5, 5.5, 6]) * scale
        file = nifti(
            tmp_path / name,
            s=(254, "<i2", 0),
            p=(80, "<f4", spacing),
            u=(123, "u1", unit),
            o=(268, "<f4", [0, 0, 0]),
        )
        np.testing.assert_allclose(read_ct(file).image.GetSpacing(), (5, 5.5, 6), rtol=1e-5)


def test_a_qform_beside_the_sform_is_a_note_and_a_contradiction_a_refusal(tmp_path: Path) -> None:
    [near] = nifti_notes(tmp_path / "near", -12 + 60.0)
    assert "apart" in near
    assert nifti_notes(tmp_path / "same", 60.0) == []
    file = nifti(tmp_path, qfac=(76, "<f4", -1.0))
    assert "contradict" in refusal(file)


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_an_unknown_orientation_is_a_note(tmp_path: Path, suffix: str) -> None:
    assert read_ct(written(tmp_path, suffix)).notes == ()
    if suffix == ".nii":
        file = nifti(tmp_path, codes=(252, "<i2", [0, 0]))
    elif suffix == ".mha":
        file = written(tmp_path, suffix)
        edited(file, b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b"")
        assert read_ct(file).notes == ()  # the letters RAI say it
        edited(file, b"AnatomicalOrientation = RAI", b"AnatomicalOrientation = LPI")
    else:
        file = edited(written(tmp_path, suffix), b"left-posterior-superior", b"scanner-xyz")
    assert read_ct(file).notes == (UNKNOWN_ORIENTATION,)


def nifti_notes(folder: Path, x: float) -> list[str]:
    folder.mkdir()
    return list(read_ct(nifti(folder, offset=(268, "<f4", x))).notes)


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_rounded_directions_are_set_right_and_sheared_ones_refused(
    tmp_path: Path, rounded: bool, suffix: str
) -> None:
    slip = 8e-4 if rounded else 0.1
    file = written(tmp_path, suffix)
    if suffix == ".nii":
        file = nifti(tmp_path, q=(252, "<i2", 0), shear=(296, "<f4", 5.0 * slip))
    elif suffix == ".mha":
        edited(file, b"TransformMatrix = 1 0", f"TransformMatrix = 1 {slip}".encode())
    else:
        edited(file, b"(5,0,0)", f"(5,{5 * slip},0)".encode())
    if not rounded:
        assert "not perpendicular" in refusal(file)
        return
    scan = read_ct(file)
    directions = np.reshape(scan.image.GetDirection(), (3, 3))
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)
    assert any("were rounded" in note for note in scan.notes)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["CT", "größe", os.fsdecode(b"gr\xf6\xdfe"), "a b%n"])
def test_any_name_and_capitals_are_read(tmp_path: Path, suffix: str, name: str) -> None:
    file = written(tmp_path, suffix)
    (tmp_path / name).mkdir()
    for part in tmp_path.iterdir():
        if part.is_file():
            new = part.name.upper() if part == file else part.name
            part.rename(tmp_path / name / new)
    assert read_ct(tmp_path / name / file.name.upper()).image.GetSize() == (24, 20, 12)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("called", SUFFIXES)
def test_a_wrong_suffix_does_no_harm(tmp_path: Path, suffix: str, called: str) -> None:
    file = written(tmp_path, suffix)
    file.rename(tmp_path / f"other{called}")
    assert read_ct(tmp_path / f"other{called}").image.GetSize() == (24, 20, 12)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\0" * 4000, "is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\0" * 128 + b"DICM" + b"\0" * 400, "is DICOM"),
        (gzip.compress(b"hello", mtime=0), "neither"),
        (gzip.compress(bytes(400), mtime=0)[:12], "is empty"),
    ],
)
def test_what_is_no_volume_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    for suffix in SUFFIXES:
        (tmp_path / f"x{suffix}").write_bytes(content)
        assert words in refusal(tmp_path / f"x{suffix}")


def test_values_that_are_no_number_are_a_note(tmp_path: Path) -> None:
    image = sitk.Cast(ct(), sitk.sitkFloat32)
    image[3, 3, 3], image[4, 4, 4], image[5, 5, 5] = np.nan, np.inf, -np.inf
    sitk.WriteImage(image, tmp_path / "x.nrrd")
    scan = read_ct(tmp_path / "x.nrrd")
    assert any("3 voxels were NaN or infinite" in note for note in scan.notes)
    assert np.isfinite(sitk.GetArrayViewFromImage(scan.image)).all()


@pytest.mark.parametrize("offset", [1000, 1024])
@pytest.mark.parametrize("padded", [False, True])
def test_values_with_an_offset_are_refused(tmp_path: Path, offset: int, padded: bool) -> None:
    image = ct() + offset
    if padded:
        image[:2, :, :] = -2000
    sitk.WriteImage(image, tmp_path / "x.nrrd")
    assert "not CT in HU" in refusal(tmp_path / "x.nrrd")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_pipes_devices_and_sparse_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nrrd")
    assert "regular file" in refusal(tmp_path / "pipe.nrrd")
    os.mkfifo(tmp_path / "pipe.dcm")
    assert "regular file" in refusal(tmp_path / "pipe.dcm")
    file = written(tmp_path, ".mhd")
    (tmp_path / "ct.raw").unlink()
    (tmp_path / "ct.raw").symlink_to("/dev/zero")
    assert "names the data file" in refusal(file)
    with (tmp_path / "sparse.nii").open("wb") as stream:
        stream.truncate(1 << 42)
    assert "almost empty" in refusal(tmp_path / "sparse.nii")


def test_bombs_are_refused_without_being_unpacked(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    header = (
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2000 2000 2000\nendian: little\n"
        b"space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
        b"encoding: gzip\n\n"
    )
    (tmp_path / "claims.nrrd").write_bytes(header + gzip.compress(bytes(1000)))
    assert re.search("would unpack to 16.0 GB", refusal(tmp_path / "claims.nrrd"))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(gzip.compress(bytes(50 << 20))))
    refusal(tmp_path / "bomb.nii.gz")
    (tmp_path / "header.nrrd").write_bytes(b"NRRD0004\n" + b"#" * (8 << 20))
    assert "no sense" in refusal(tmp_path / "header.nrrd")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 300_000  # KiB
