"""Organizing DICOM files: their names and places, what is left out, pseudonyms, the command."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from typer.testing import CliRunner

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import MAX_LENGTH, MISSING, FolderNames, folder_name
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.cli import app
from CTSliceToolsLib.options import Transfer
from CTSliceToolsLib.organizing.identifiers import (
    Identifiers,
    Kind,
    LeftOut,
    identify,
    pseudonym,
    read_or_make_key,
)
from CTSliceToolsLib.organizing.organizer import organize
from dicom_files import AXIAL, compress, ct_slice, positions, save, write_enhanced, write_series
from dicom_heaps import images, left_out, tree, write

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")

IDENTIFIERS = st.one_of(
    st.text(),
    st.text("aA.b/+@2fF\0~ é", max_size=9),
    st.sampled_from(["CON", "nul", "com1", "LPT9.x", "a" * 64, "a" * 65, "A" * 300, "1.2.840"]),
    st.text("aAbB", min_size=60, max_size=70),
)


# --- names -----------------------------------------------------------------------------------


@given(IDENTIFIERS)
@example("..")
@example("\udcff")
def test_a_folder_name_is_legal_everywhere(identifier: str) -> None:
    name = folder_name(identifier)
    assert re.fullmatch(r"[A-Za-z0-9_+@-]([A-Za-z0-9._+@-]*[A-Za-z0-9_+@-])?", name)
    assert len(name) <= MAX_LENGTH
    assert not re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)
    parent = Path("parent").resolve()
    assert (parent / name).resolve().parent == parent


@given(IDENTIFIERS, IDENTIFIERS, st.integers(0))
@example("a/b", "a_b", 0)
@example("", MISSING, 0)
@example("+2f", "/", 0)
@example("ab@1", "aB", 0)
@example("é", "e\u0301", 0)
@example("X" * 80, "X" * 81, 0)
def test_two_identifiers_never_share_a_folder(one: str, other: str, flips: int) -> None:
    recased = "".join(c.swapcase() if flips >> k & 1 else c for k, c in enumerate(one))
    for twin in (other, recased, folder_name(one), one + " ", one + "."):
        if twin != one:
            names = FolderNames()
            first, second = (names.child(Path("nowhere"), each).name for each in (one, twin))
            assert first.casefold() != second.casefold()
            assert folder_name(twin) != folder_name(one)


def test_usual_identifiers_are_their_own_names() -> None:
    for identifier in ("LIDC-IDRI-0001", "1.3.6.1.4.1.14519.5.2.1", "Breast_001"):
        assert folder_name(identifier) == identifier
    assert folder_name("a/b") == "a+2fb"
    assert folder_name("") == MISSING


def test_names_that_differ_in_case_only_stay_apart_also_from_existing_ones(
    tmp_path: Path,
) -> None:
    (tmp_path / "Ab").mkdir()
    names = FolderNames()
    found = [names.child(tmp_path, each).name for each in ("Ab", "AB", "ab", "AB")]
    assert found == ["Ab", "AB@0", "ab@3", "AB@0"]


# --- where files go --------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", Transfer)
def test_a_heap_is_organized(source: Path, tmp_path: Path, transfer: Transfer) -> None:
    before = tree(source)
    target = tmp_path / "target"
    summary = organize(source, target, transfer)
    folders = {path.parent.parent.parent.name for path in target.rglob("*.dcm")}
    assert folders == {"P1", "a+2fb+20c"}
    names = sorted(path.name for path in (target / "P1").rglob("*.dcm"))
    assert names[:1] == ["1-" + names[0][2:18] + ".dcm"]
    assert names[1:3] == ["1.dcm", "2.dcm"]
    assert re.fullmatch(r"no-number-[0-9a-f]{16}\.dcm", names[3])
    [first] = (target / "P1").rglob("1.dcm")
    assert first.read_bytes() == before["cd1/IM1"]
    organized = set(images(target).values())
    assert organized == {content for name, content in before.items() if name.startswith("cd")}
    counts = (summary.placed, summary.duplicates, summary.already_there)
    assert counts == (5, 1, 0)
    assert (summary.patients, summary.studies, summary.series) == (2, 2, 2)
    assert (summary.not_dicom, summary.broken, summary.indexes) == (1, 1, 0)
    assert summary.placed_bytes == sum(map(len, images(target).values()))
    assert left_out(summary)["notes.txt"] == "is not DICOM"
    assert "cut short" in left_out(summary)["half.dcm"]
    assert {path.name for path in target.iterdir()} == folders | {"left-out.csv"}
    kept = ("half.dcm", "notes.txt")
    after = {name: before[name] for name in kept} if transfer is Transfer.MOVE else before
    assert tree(source) == after


def test_the_order_of_a_folder_does_not_matter(source: Path, tmp_path: Path) -> None:
    organize(source, tmp_path / "one")
    copied = tmp_path / "copied"
    for file in sorted(source.rglob("*"), reverse=True):
        if file.is_file():
            (copied / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied / file.relative_to(source))
    organize(copied, tmp_path / "two")
    assert images(tmp_path / "one") == images(tmp_path / "two")


@pytest.mark.parametrize("identifier", ["../../x", "", "/", "..", "a\\b", "nul", " ", "x" * 64])
def test_a_hostile_patient_stays_inside(tmp_path: Path, identifier: str) -> None:
    write(tmp_path / "deep" / "source" / "a", PatientID=identifier)
    target = tmp_path / "deep" / "target"
    organize(tmp_path / "deep" / "source", target)
    [file] = target.rglob("*.dcm")
    assert len(file.relative_to(target).parts) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"source", "target"}


@pytest.mark.filterwarnings("ignore:Invalid value for VR IS")
@pytest.mark.parametrize(
    ("number", "name"),
    [(7, "7"), ("+7", "7"), ("007", "7"), ("-3", "-3"), ("7.0", "7"), (2**31 - 1, "2147483647")],
)
def test_instance_numbers_become_names(tmp_path: Path, number: object, name: str) -> None:
    write(tmp_path / "source" / "a", number)
    organize(tmp_path / "source", tmp_path / "target")
    assert [path.stem for path in (tmp_path / "target").rglob("*.dcm")] == [name]


def test_many_files_without_a_number_stay_apart(tmp_path: Path) -> None:
    for k in range(5):
        write(tmp_path / "source" / f"{k}", "" if k % 2 else None)
    summary = organize(tmp_path / "source", tmp_path / "target")
    assert summary.placed == len(images(tmp_path / "target")) == 5


def test_the_alphabet_of_a_patient_does_not_matter_but_broken_letters_do(tmp_path: Path) -> None:
    for name, charset in (("latin", "ISO_IR 100"), ("utf", "ISO_IR 192")):
        write(tmp_path / "source" / name, SpecificCharacterSet=charset, PatientID="Müller")
    content = (tmp_path / "source" / "utf").read_bytes()
    for k, broken in enumerate((b"M\xff\xffller", b"M\xfe\xffller")):
        damaged = content.replace("Müller".encode(), broken)
        assert damaged != content
        (tmp_path / "source" / f"broken{k}").write_bytes(damaged)
    assert organize(tmp_path / "source", tmp_path / "target").patients == 3


def _unwrapped(file: Path) -> None:
    content = file.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    file.write_bytes(content[144 + length :])


@pytest.mark.parametrize(
    "form", ["implicit", "explicit", "big endian", "deflated", "RLE", "no preamble", "long header"]
)
def test_every_form_of_file_is_understood(tmp_path: Path, form: str) -> None:
    file = tmp_path / "source" / "a"
    file.parent.mkdir()
    image = ct_slice(AXIAL, (0, 0, 0), "chest")
    image.PatientID, image.InstanceNumber = "P7", 12
    syntaxes: dict[str, UID] = {
        "implicit": ImplicitVRLittleEndian,
        "no preamble": ImplicitVRLittleEndian,
        "big endian": ExplicitVRBigEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
    }
    image.file_meta.TransferSyntaxUID = syntaxes.get(form, ExplicitVRLittleEndian)
    if form == "long header":
        block = image.private_block(0x0009, "SOMEBODY", create=True)
        block.add_new(1, "OB", bytes(50_000))
        image.ReferencedImageSequence = [Dataset()]
        image.ReferencedImageSequence[0].SeriesInstanceUID = "1.2.3"
    save(image, file)
    if form == "RLE":
        compress(file, RLELossless)
    if form == "no preamble":
        _unwrapped(file)
    found = identify(file)
    assert isinstance(found, Identifiers)
    assert (found.patient, found.number, found.size) == ("P7", 12, file.stat().st_size)
    assert (found.study, found.series) == (image.StudyInstanceUID, image.SeriesInstanceUID)


def test_an_enhanced_file_is_one_instance(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    write_enhanced(tmp_path / "source" / "a", AXIAL, positions())
    organize(tmp_path / "source", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").rglob("*.dcm")] == ["1.dcm"]


def test_an_organized_series_is_read_as_before(tmp_path: Path) -> None:
    write_series(tmp_path / "source")
    organize(tmp_path / "source", tmp_path / "target")
    one, other = read_ct(tmp_path / "source").image, read_ct(tmp_path / "target").image
    assert one.GetOrigin() == other.GetOrigin()
    assert tree(tmp_path / "source").keys() != tree(tmp_path / "target").keys()
    assert sorted(tree(tmp_path / "source").values()) == sorted(tree(tmp_path / "target").values())


def test_real_files_are_organized(shared_data: Path, tmp_path: Path) -> None:
    summary = organize(shared_data / "LIDC-IDRI-0001", tmp_path / "target")
    assert (summary.placed, summary.series, summary.not_dicom) == (133, 1, 1)
    [series] = (tmp_path / "target" / "LIDC-IDRI-0001").glob("*/*")
    assert {path.name for path in series.iterdir()} == {f"{k}.dcm" for k in range(1, 134)}


# --- what is left out ------------------------------------------------------------------------


def test_broken_files_are_listed_with_their_reasons(tmp_path: Path) -> None:
    source = tmp_path / "source"
    whole = write(source / "whole").read_bytes()
    (source / "header.dcm").write_bytes(whole[:500])
    (source / "pixels.dcm").write_bytes(whole[:-1])
    (source / "headonly.dcm").write_bytes(whole[: whole.index(b"\xe0\x7f\x10\0") - 1])
    (source / "stripped.dcm").write_bytes(whole[: whole.index(b"\xe0\x7f\x10\0")])
    (source / "empty.dcm").write_bytes(b"")
    (source / "=cmd.txt").write_text("hello")
    write(source / "seriesless", SeriesInstanceUID=None)
    summary = organize(source, tmp_path / "target")
    reasons = left_out(summary)
    assert set(reasons) == {
        "header.dcm", "pixels.dcm", "headonly.dcm", "empty.dcm", "=cmd.txt", "seriesless",
    }  # fmt: skip
    assert reasons["pixels.dcm"] == f"is cut short: {len(whole) - 1} of {len(whole)} bytes"
    assert reasons["headonly.dcm"] == "is cut short: it ends within its header"
    assert reasons["seriesless"] == "names no series"
    assert (summary.placed, summary.broken, summary.not_dicom) == (2, 5, 1)


def test_companion_files_of_macos_are_not_broken(tmp_path: Path) -> None:
    companion = b"\0\5\x16\7" + bytes(4092)
    for name in ("mac/1.dcm", "cd/IM1"):
        file = write(tmp_path / "source" / name)
        file.with_name(f"._{file.name}").write_bytes(companion)
    summary = organize(tmp_path / "source", tmp_path / "target")
    assert (summary.not_dicom, summary.broken) == (2, 0)
    assert left_out(summary) == dict.fromkeys(("._1.dcm", "._IM1"), "is not DICOM")


def test_compressed_pixels_that_do_not_end_are_cut_short(tmp_path: Path) -> None:
    source = tmp_path / "source"
    file = write(source / "whole")
    compress(file, RLELossless)
    image = pydicom.dcmread(file)
    image.add_new(0xFFFCFFFC, "OB", bytes(4000))  # Data Set Trailing Padding
    save(image, source / "padded")
    whole = file.read_bytes()
    pixels = whole.index(b"\xe0\x7f\x10\0OB")
    cuts = {"8 bytes": -8, "half": (pixels + len(whole)) // 2, "all": pixels + 12}
    for name, length in cuts.items():
        (source / name).write_bytes(whole[:length])
    summary = organize(source, tmp_path / "target")
    reason = "is cut short: its compressed pixels do not end"
    assert left_out(summary) == dict.fromkeys(cuts, reason)
    assert (summary.placed, summary.broken) == (2, 3)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_the_pixels_of_an_icon_are_not_those_of_the_image(
    tmp_path: Path, implicit: bool, undefined: bool, packed: bool
) -> None:
    icon, nested = Dataset(), Dataset()
    icon.Rows, icon.Columns, icon.PixelData = 8, 8, bytes(64)
    icon["PixelData"].VR = "OB"
    if packed:
        icon.PixelData = encapsulate([bytes(64)])
        icon["PixelData"].is_undefined_length = True
    nested.IconImageSequence = [icon]
    image = pydicom.dcmread(write(tmp_path / "plain"))
    image.IconImageSequence, image.RequestAttributesSequence = [icon], [nested, nested]
    for sequence in (image["IconImageSequence"], image["RequestAttributesSequence"]):
        sequence.is_undefined_length = undefined
        for item in sequence.value:
            item.is_undefined_length_sequence_item = undefined
    nested["IconImageSequence"].is_undefined_length = undefined
    if implicit:
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    source = tmp_path / "source"
    source.mkdir()
    image.save_as(source / "whole", implicit_vr=implicit, little_endian=True)
    whole = (source / "whole").read_bytes()
    (source / "pixels.dcm").write_bytes(whole[:-1])
    (source / "icon.dcm").write_bytes(whole[: whole.index(b"\xe0\x7f\x10\0") + 40])
    summary = organize(source, tmp_path / "target")
    reasons = left_out(summary)
    assert reasons["pixels.dcm"] == f"is cut short: {len(whole) - 1} of {len(whole)} bytes"
    assert set(reasons) == {"pixels.dcm", "icon.dcm"}
    assert (summary.placed, summary.broken) == (1, 2)


def test_the_list_is_written_once_and_never_over_another(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    first = organize(source, target).left_out_table
    assert first and organize(source, target).left_out_table == first
    before = first.read_bytes()
    (source / "more.txt").write_text("hello")
    second = organize(source, target).left_out_table
    assert second == target / "left-out-2.csv"
    assert first.read_bytes() == before


def test_a_dicomdir_is_left_out_and_counted(tmp_path: Path) -> None:
    index = FileSet()
    for k in range(2):
        index.add(write(tmp_path / "loose" / f"{k}", k, StudyID="1"))
    index.write(tmp_path / "source")
    summary = organize(tmp_path / "source", tmp_path / "target")
    assert (summary.placed, summary.indexes) == (2, 1)
    assert "index" in left_out(summary)["DICOMDIR"]


@posix
def test_links_and_pipes_do_no_harm(source: Path, tmp_path: Path) -> None:
    (source / "cd1" / "round").symlink_to(source)
    (source / "loop").symlink_to(source / "loop")
    (source / "nowhere").symlink_to(tmp_path / "missing")
    (source / "IM1 too").symlink_to(source / "cd1" / "IM1")
    os.mkfifo(source / "pipe")
    summary = organize(source, tmp_path / "target")
    reasons = left_out(summary)
    assert "not followed" in reasons["round"]
    assert reasons["pipe"] == "is not a regular file"
    assert "cannot be read" in reasons["loop"] and "cannot be read" in reasons["nowhere"]
    assert (summary.placed, summary.duplicates) == (5, 2)


def test_a_folder_that_cannot_be_entered_is_left_out(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(source / "cd2" / "inner" / "IM5")
    looked_at = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if source / "cd2" in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return looked_at(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    summary = organize(source, tmp_path / "target")
    reasons = left_out(summary)
    assert reasons["inner"] == "is a folder that cannot be opened: Permission denied"
    assert reasons["IM9"] == "cannot be read: Permission denied"
    assert (summary.placed, summary.broken) == (2, 6)


def test_a_file_that_vanishes_is_listed(source: Path, tmp_path: Path) -> None:
    def report(stage: str, done: int, total: int) -> None:
        if stage == "Organizing":
            (source / "cd2" / "IM9").unlink(missing_ok=True)

    summary = organize(source, tmp_path / "target", progress=report)
    assert summary.placed == 4
    assert "cannot be read" in left_out(summary)["IM9"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_is_no_crash(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "a"
    if not file.exists():
        write(file)
        file.with_name("content").write_bytes(file.read_bytes())
    content = bytearray(file.with_name("content").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(128, 900))
        content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    file.write_bytes(content)
    found = identify(file)
    if isinstance(found, LeftOut):
        assert found.reason and found.kind in Kind
    else:
        assert found.series


# --- pseudonyms ------------------------------------------------------------------------------


def test_pseudonyms_hide_identifiers_and_depend_on_the_key(tmp_path: Path) -> None:
    image = ct_slice(AXIAL, (0, 0, 0), "chest")
    write(tmp_path / "source" / "a", 1, PatientID="SECRET")
    write(tmp_path / "source" / "b", 1, PatientID="")
    key, another = b"k" * 32, b"l" * 32
    for target, used in (("one", key), ("two", key), ("three", another)):
        assert organize(tmp_path / "source", tmp_path / target, key=used).patients == 2
    names = {target: set(images(tmp_path / target)) for target in ("one", "two", "three")}
    assert names["one"] == names["two"]
    assert not names["one"] & names["three"]
    for name in names["one"]:
        assert re.fullmatch(r"([0-9a-f]{32}/){3}1\.dcm", name.replace(os.sep, "/"))
        assert image.StudyInstanceUID not in name
    assert pseudonym(key, "study", "x") != pseudonym(key, "series", "x")


def test_a_pseudonym_is_half_of_an_hmac_sha256() -> None:
    # Computed with: printf 'patient\0P1' | openssl dgst -sha256 -hmac 0123456789abcdef
    assert pseudonym(b"0123456789abcdef", "patient", "P1") == "db1a0b1c8878000348f18d6cc86fdd0e"


def test_a_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    file, target = tmp_path / "settings" / "key", tmp_path / "target"
    key = read_or_make_key(file, target)
    assert len(key) == 64 and read_or_make_key(file, target) == key
    assert read_or_make_key(tmp_path / "other", target) != key
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
        file.chmod(0o644)
        with pytest.raises(InputError, match="chmod 600"):
            read_or_make_key(file, target)


def test_keys_that_protect_nothing_are_refused(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("1234\n")
    short.chmod(0o600)
    with pytest.raises(InputError, match="fewer than 16"):
        read_or_make_key(short, tmp_path / "target")
    with pytest.raises(InputError, match="keep it elsewhere"):
        read_or_make_key(tmp_path / "target" / "key", tmp_path / "target")
    with pytest.raises(InputError, match="neither be read nor made"):
        read_or_make_key(tmp_path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


# --- the command -----------------------------------------------------------------------------


def command(*arguments: str | Path, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["organize", *map(str, arguments)])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


def test_the_command_ends_with_a_table(source: Path, tmp_path: Path) -> None:
    printed = command(source, tmp_path / "target", "--progress", "none", status=1)  # one is broken
    rows = dict(re.findall(r"^([A-Z].*?)\s+([\d.]+)$", printed, re.MULTILINE))
    expected = {"Patients": "2", "Series": "2", "Files copied": "5", "Duplicates": "1"}
    assert expected.items() <= rows.items()
    assert {"Not DICOM": "1", "Broken": "1", "Already there": "0"}.items() <= rows.items()
    assert str(tmp_path / "target" / "left-out.csv") in printed


def test_the_command_speaks_json(source: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    options = ("--pseudonymize", "--key-file", key, "--progress", "jsonl")
    printed = command(source, tmp_path / "target", *options, status=1)
    lines = [json.loads(line) for line in printed.splitlines()]
    result = lines[-1]["result"]
    assert (result["placed"], result["transfer"]) == (5, "copy")
    assert result["left_out_table"] == str(tmp_path / "target" / "left-out.csv")
    assert any(str(key) in line.get("message", "") for line in lines)
    assert "P1" not in {path.name for path in (tmp_path / "target").iterdir()}


def test_a_key_without_pseudonyms_is_a_mistake(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--pseudonymize"):
        command(source, tmp_path / "target", "--key-file", tmp_path / "key")
    assert not (tmp_path / "key").exists()


def test_help_has_an_example() -> None:
    assert "Example: ct-slice-tools organize " in " ".join(command("--help").split())
