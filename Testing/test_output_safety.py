"""No link inside an output folder is followed, written through, emptied or replaced."""

import json
import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from bright_model import write_bright_model
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, new_files, private_folder, replace_text
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import fit, require_new_training
from CTLungScreeningLib.staging import staging_folder
from CTSliceToolsLib.dataset.conversion import convert
from CTSliceToolsLib.dataset.normalization import COMBINED_LOCATIONS
from CTSliceToolsLib.localizer.results import predict_all
from CTSliceToolsLib.options import Transfer
from CTSliceToolsLib.organizing.organizer import organize
from dicom_files import write_series
from LungNoduleSegLib.batch.running import BATCH_RECORD, SCANS, run_batch
from LungNoduleSegLib.batch.scan_work import RESULTS_TABLE
from LungNoduleSegLib.feature_extraction import write_feature_table
from LungNoduleSegLib.options import RunOptions

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")

GUESSES = (".organizing", ".writing", ".lock", ".unfinished", ".unfinished-x", "part")
"""Names that the staging folder had once, or that somebody may think it has."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_series(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder outside that must stay as it is."""
    folder = tmp_path / "theirs"
    (folder / "deep").mkdir(parents=True)
    (folder / "precious").write_text("precious")
    (folder / "deep" / "precious").write_text("precious")
    return folder


def untouched(theirs: Path) -> bool:
    return {str(one.relative_to(theirs)) for one in theirs.rglob("*")} == {
        "precious",
        "deep",
        "deep/precious",
    }


def placed(output: Path) -> int:
    return sum(1 for one in output.rglob("*.dcm") if not one.is_symlink())


@pytest.mark.parametrize("name", GUESSES)
@pytest.mark.parametrize("kind", ["folder", "file", "dangling"])
def test_organize_empties_nothing_behind_a_link(
    source: Path, theirs: Path, tmp_path: Path, name: str, kind: str
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    target = {"folder": theirs, "file": theirs / "precious", "dangling": tmp_path / "nowhere"}[kind]
    (output / name).symlink_to(target)
    try:
        organize(source, output)
    except InputError as error:
        assert str(output / name) in str(error)
    else:
        assert placed(output) == len(list(source.iterdir()))
    assert untouched(theirs)
    assert (output / name).readlink() == target
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("transfer", Transfer)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("dangling", [False, True])
def test_organize_writes_through_no_linked_patient_study_or_series(
    source: Path, theirs: Path, tmp_path: Path, transfer: Transfer, depth: int, dangling: bool
) -> None:
    organize(source, tmp_path / "once")
    [series] = {one.parent for one in (tmp_path / "once").rglob("*.dcm")}
    linked = Path(*series.relative_to(tmp_path / "once").parts[:depth])
    output = tmp_path / "output"
    (output / linked).parent.mkdir(parents=True)
    (output / linked).symlink_to(tmp_path / "nowhere" if dangling else theirs)
    before = sorted(source.iterdir())
    with pytest.raises(InputError, match=rf"{re.escape(str(output / linked))} is a link"):
        organize(source, output, transfer)
    assert untouched(theirs) and not (tmp_path / "nowhere").exists()
    assert sorted(source.iterdir()) == before
    assert (output / linked).is_symlink()


def test_a_moved_file_is_kept_where_only_a_link_to_its_content_is_there(
    source: Path, theirs: Path, tmp_path: Path
) -> None:
    """A link in the place of an image is neither that image nor replaced."""
    organize(source, tmp_path / "once")
    [first] = (tmp_path / "once").rglob("1.dcm")
    place = tmp_path / "output" / first.relative_to(tmp_path / "once")
    place.parent.mkdir(parents=True)
    outside = theirs.with_name("outside.dcm")
    shutil.copy(first, outside)
    place.symlink_to(outside)
    count = len(list(source.iterdir()))
    organize(source, tmp_path / "output", Transfer.MOVE)
    assert place.is_symlink() and outside.read_bytes() == first.read_bytes()
    assert placed(tmp_path / "output") == count


def test_the_list_of_what_was_left_out_is_written_through_no_link(
    source: Path, tmp_path: Path
) -> None:
    (source / "notes.txt").write_text("hello")
    output = tmp_path / "output"
    output.mkdir()
    (output / "left-out.csv").symlink_to(tmp_path / "nowhere")
    assert organize(source, output).left_out_table == output / "left-out-2.csv"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("linked", ["P1", "P1/study"])
@pytest.mark.parametrize("dangling", [False, True])
def test_convert_and_predict_write_through_no_linked_folder(
    volume: Path, theirs: Path, tmp_path: Path, linked: str, dangling: bool
) -> None:
    data, output = tmp_path / "data", tmp_path / "output"
    series = data / "P1" / "study"
    slices = write_series(series, name="{k}.dcm")
    locations = {one.relative_to(data).as_posix(): 0.2 for one in slices}
    (data / COMBINED_LOCATIONS).write_text(json.dumps(locations))
    scans = tmp_path / "scans"
    (scans / "P1" / "study").mkdir(parents=True)
    shutil.copy(volume, scans / "P1" / "study")
    (output / linked).parent.mkdir(parents=True)
    (output / linked).symlink_to(tmp_path / "nowhere" if dangling else theirs)
    for work in (lambda: convert(data, output), lambda: predict_all(scans, output, plot=False)):
        with pytest.raises(InputError, match=rf"{re.escape(str(output / linked))} is a link"):
            work()
    assert untouched(theirs) and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("linked", ["", "cache", "stage-1", "stage-1/checkpoint"])
def test_training_writes_through_no_linked_folder(
    theirs: Path, tmp_path: Path, linked: str
) -> None:
    folder = tmp_path / "output" / "m-training"
    (folder / linked).parent.mkdir(parents=True)
    (folder / linked).symlink_to(theirs)
    with pytest.raises(InputError, match=rf"{re.escape(str(folder / linked))} is a link"):
        require_new_training(folder.with_name("m.keras"), folder, "cache")
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        fit(
            model,
            keras.utils.PyDataset(),
            folder / "stage-1",
            epochs=1,
            settings={},
            validation=keras.utils.PyDataset(),
            patience=None,
            on_epoch=lambda _: None,
        )
    assert untouched(theirs)


NAMES = (BATCH_RECORD, RESULTS_TABLE, SCANS)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    air = sitk.GetImageFromArray(np.full((8, 16, 16), -1000, np.int16))
    sitk.WriteImage(air, tmp_path / "volume.nrrd")
    return tmp_path / "volume.nrrd"


@pytest.mark.parametrize(
    ("name", "dangling"),
    [
        (".writing", False),
        (".unfinished-x", False),
        *((name, dangling) for name in (".lock", *NAMES) for dangling in (False, True)),
    ],
)
def test_batch_follows_no_link(
    volume: Path, theirs: Path, tmp_path: Path, name: str, dangling: bool
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    target = tmp_path / "nowhere" if dangling else theirs
    (output / name).symlink_to(target)
    options = RunOptions(model=write_bright_model(tmp_path / "model.keras"))
    try:
        run_batch(volume, output, options, workers=1)
    except InputError as error:
        assert str(output / name) in str(error)
    else:
        assert name.startswith((".writing", ".unfinished"))
    assert untouched(theirs) and not (tmp_path / "nowhere").exists()
    assert (output / name).readlink() == target


def test_no_folder_beside_a_table_or_a_model_is_a_link(
    volume: Path, theirs: Path, tmp_path: Path
) -> None:
    (tmp_path / "table-runs").symlink_to(theirs)
    with pytest.raises(InputError, match="table-runs is a link"):
        write_feature_table(volume, tmp_path / "table.csv")
    folder = tmp_path / "model-training"
    folder.mkdir()
    for link in (folder / "mistakes", folder / "stage-1", folder):
        if link == folder:
            folder.rmdir()
        link.symlink_to(theirs)
        with pytest.raises(InputError, match=rf"{link.name} is a link"):
            require_new_training(tmp_path / "model.keras", folder, "mistakes")
        link.unlink()
    assert untouched(theirs)


def test_only_folders_of_killed_runs_are_removed(theirs: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / ".unfinished-link").symlink_to(theirs)
    (output / ".unfinished-open").mkdir()  # not as this program makes them
    (output / ".unfinished-file").write_text("theirs")
    (output / ".unfinished-dead").mkdir(mode=0o700)
    with staging_folder(output, "writing") as staging:
        assert stat.S_IMODE(staging.stat().st_mode) == 0o700
        assert not (output / ".unfinished-dead").exists()
        (staging / "half").write_text("half")
    assert {one.name for one in output.iterdir()} == {
        ".unfinished-link",
        ".unfinished-open",
        ".unfinished-file",
    }
    assert untouched(theirs)


def test_names_of_private_folders_cannot_be_guessed(tmp_path: Path) -> None:
    names = set()
    for _ in range(20):
        with private_folder(tmp_path, "x") as folder:
            names.add(folder.name)
    assert len(names) == 20 and all(len(name) >= len(".x.unfinished-") + 8 for name in names)


@pytest.mark.parametrize("dangling", [False, True])
def test_one_file_is_written_through_no_link(theirs: Path, tmp_path: Path, dangling: bool) -> None:
    target = tmp_path / "nowhere" if dangling else theirs / "precious"
    (tmp_path / "out").symlink_to(target)
    with pytest.raises(InputError, match="already holds out"), new_file(tmp_path / "out"):
        pass
    with pytest.raises(InputError, match="is a link"):
        replace_text(tmp_path / "out", "mine")
    assert (tmp_path / "out").readlink() == target
    assert untouched(theirs) and (theirs / "precious").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "same").symlink_to(tmp_path)
    for other in (tmp_path / "out", tmp_path / "x" / ".." / "out", tmp_path / "same" / "out"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with (
            pytest.raises(InputError, match=r"out would be written twice"),
            new_files(tmp_path / "out", other),
        ):
            pass
    assert not (tmp_path / "out").exists()


def test_a_link_that_comes_up_while_a_file_is_written_is_kept(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="already holds out"),
        new_file(tmp_path / "out") as temporary,
    ):
        temporary.write_text("mine")
        (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    assert (tmp_path / "out").is_symlink() and not (tmp_path / "nowhere").exists()


def test_files_have_the_users_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_file(tmp_path / "out") as temporary:
            temporary.write_text("mine")
        replace_text(tmp_path / "again", "mine")
    finally:
        os.umask(before)
    for name in ("out", "again"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
