"""A command whose work failed in part ends with status 1, also for a parent process."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

import annotated_scans
import CTLungScreeningLib
import CTSliceToolsLib
import hostile_makers
import risk_tables
import test_conversion
import test_normalization
from bright_model import write_bright_model
from CTLungScreeningLib.child_process import module_command, module_environment, run_command
from CTSliceToolsLib.cli import app as slices
from CTSliceToolsLib.dataset.annotation import ANNOTATION
from CTSliceToolsLib.dataset.conversion import convert
from LungNoduleSegLib.cli import app as nodules

Line = list[str | Path]


def organize(folder: Path) -> Line:
    hostile_makers.series()(folder)
    hostile_makers.cut(0.5)(folder / "003.dcm")
    return ["organize", folder, folder.with_name("out")]


def organize_none(folder: Path) -> Line:
    (folder / "notes.txt").write_text("no scan")
    return ["organize", folder, folder.with_name("out")]


def normalize(folder: Path) -> Line:
    test_normalization.series(folder / "S1")
    test_normalization.series(folder / "S2", annotation={"C7": "lost.dcm"}, uid="other")
    return ["normalize", folder]


def to_convert(folder: Path) -> Line:
    root = test_conversion.dataset(folder / "data")
    (root / "P1" / "study" / "2.dcm").write_bytes(b"nonsense")
    return ["convert", root, "-o", folder / "npz"]


def partition(folder: Path) -> Line:
    convert(test_conversion.dataset(folder / "data"), folder / "npz")
    (folder / "npz" / "bad.npz").write_bytes(b"nonsense")
    return ["partition", folder / "npz", "-o", folder / "parts"]


def predict(folder: Path) -> Line:
    sitk.WriteImage(hostile_makers.phantom(), folder / "good.nrrd")
    (folder / "bad.nrrd").write_bytes(b"nonsense")
    return ["predict", folder, "--all", "-o", folder.with_name("out"), "--no-plot"]


def features(folder: Path) -> Line:
    risk_tables.write_run(folder / "good")
    shutil.copytree(folder / "good", folder / "bad")
    (folder / "bad" / "lungs.nii.gz").write_bytes(b"nonsense")
    return ["features", folder, "-o", folder.with_name("f.csv")]


def prepare(folder: Path) -> Line:
    chests = {f"1.2.{n}": annotated_scans.chest(n) for n in (1, 2)}
    luna, annotations = annotated_scans.write_luna(folder, chests)
    next(luna.rglob("1.2.1.raw")).write_bytes(b"short")
    return ["prepare-luna", luna, annotations, folder / "store", "--neighbours", "0"]


def batch(folder: Path) -> Line:
    predict(folder)
    model = write_bright_model(folder.with_name("model.keras"))
    return ["batch", folder, "-o", folder.with_name("out"), "--workers", "1", "--model", model]


CASES: list[tuple[typer.Typer, Callable[[Path], Line]]] = [
    *(
        (slices, one)
        for one in (organize, organize_none, normalize, to_convert, partition, predict)
    ),
    *((nodules, one) for one in (features, prepare)),
    pytest.param(nodules, batch, marks=pytest.mark.slow),  # type: ignore[list-item]
]


@pytest.mark.parametrize("style", ["jsonl", "none"])
@pytest.mark.parametrize(("app", "make"), CASES)
def test_work_that_failed_in_part(
    app: typer.Typer, make: Callable[[Path], Line], style: str, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    done = CliRunner().invoke(app, [*map(str, make(folder)), "--progress", style])
    assert done.exit_code == 1, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    if style == "jsonl":
        assert "result" in json.loads(done.stdout.splitlines()[-1])


def floats(app: typer.Typer) -> Iterator[list[str]]:
    """The command lines that end in an option with a number, of all commands."""
    for group in app.registered_groups:
        assert group.typer_instance and isinstance(group.name, str)
        yield from ([group.name, *line] for line in floats(group.typer_instance))
    for one in app.registered_commands:
        assert one.callback
        command = one.name or one.callback.__name__.replace("_", "-")
        for name, hint in get_type_hints(one.callback).items():
            if float in (hint, *get_args(hint)):
                yield [command, f"--{name.replace('_', '-')}"]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("app", [slices, nodules])
def test_numbers_that_are_not_finite_are_refused(app: typer.Typer, text: str) -> None:
    lines = list(floats(app))
    assert lines
    for line in lines:
        done = CliRunner().invoke(app, [*line, text])
        assert done.exit_code == 2 and f"Invalid value for '{line[-1]}'" in done.output, line


@pytest.mark.parametrize("text", ["-1.5", "2.5", "1e300"])
def test_a_location_outside_the_body_is_refused(text: str) -> None:
    done = CliRunner().invoke(slices, ["match", "scan.json", "--location", text])
    assert done.exit_code == 2 and "Invalid value for '--location'" in done.output


def test_json_lines_are_json_lines_only(tmp_path: Path) -> None:
    hostile_makers.series()(tmp_path)
    done = CliRunner().invoke(slices, ["series", str(tmp_path), "--progress", "jsonl"])
    *_, last = map(json.loads, done.stdout.splitlines())
    assert [one["modality"] for one in last["result"]] == ["CT"]


@pytest.mark.slow
def test_the_demonstration_shows_its_progress_as_asked(tmp_path: Path) -> None:
    line = ["demo", "-o", str(tmp_path / "demo"), "--progress", "jsonl"]
    done = CliRunner().invoke(nodules, line)
    events = [json.loads(one) for one in done.stdout.splitlines()]
    assert events[0]["stage"] == "Phantom" and "Phantom" not in done.stderr
    assert "The lesions put into the phantom" in events[-1]["result"]["comparison"]


def test_options_may_be_spelt_in_capitals(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    line = [*map(str, organize(folder)), "--progress", "JSONL", "--transfer", "Link"]
    assert '"placed": 23' in CliRunner().invoke(slices, line).stdout


def test_a_folder_without_dicom_files_is_named_unless_they_were_moved(tmp_path: Path) -> None:
    line = [str(one) for one in organize_none(tmp_path)]
    assert "holds no DICOM files" in CliRunner().invoke(slices, line).output.replace("\n", " ")
    assert CliRunner().invoke(slices, [*line, "--transfer", "move"]).exit_code == 0


def test_work_that_failed_wholly(tmp_path: Path) -> None:
    """Also an annotation that names no slice, as the only series."""
    test_normalization.series(tmp_path / "S", annotation={"C7": "lost.dcm"})
    assert (tmp_path / "S" / ANNOTATION).exists()
    assert CliRunner().invoke(slices, ["normalize", str(tmp_path)]).exit_code != 0


def test_a_parent_gets_the_result_of_work_that_failed_in_part(tmp_path: Path) -> None:
    line = [*module_command("CTSliceToolsLib", *partition(tmp_path)), "--progress", "jsonl"]
    result = run_command(line, module_environment(CTSliceToolsLib, CTLungScreeningLib))
    assert len(result["failed"]) == 1 and "bad.npz" in result["failed"][0]
