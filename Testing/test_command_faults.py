"""Killed, a full disk, no permission, two writers: for every command of both command lines."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import typer

import annotated_scans
import hostile_makers
import risk_tables
import submissions
import test_normalization
import toy_models
from command_faults import CHANGES, SAID, SETTINGS, STOPPED, Fault, copy, start, tree
from CTLungScreeningLib.command_line import INTERRUPTED
from CTLungScreeningLib.reading.dicom_series import list_series
from CTSliceToolsLib.cli import app as slice_app
from CTSliceToolsLib.dataset.conversion import LabelledSlice
from LungNoduleSegLib.cli import app as nodule_app

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

NO_FAULT = Fault()
TIMEOUT_S = 300


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        line: as it is typed in a folder with the things that it needs.
        needs: names of things, see `Things`.
        slow: whether it takes more than a few seconds.
        goes_on: whether a part of the results is kept, so that the next run goes on.
        writes: whether it writes anything.
    """

    line: str
    needs: tuple[str, ...]
    slow: bool = False
    goes_on: bool = False
    writes: bool = True

    @property
    def words(self) -> str:
        return " ".join(word for word in self.line.split()[:3] if word.replace("-", "").isalpha())


ADDED = f"models/{SETTINGS}"
SLICES, NODULES = "ct-slice-tools", "lung-nodule-seg"
QUICK_TRAINING = "--epochs 1 --batch 4"

COMMANDS = (
    Command(f"{SLICES} series ct", ("ct",), writes=False),
    Command(f"{SLICES} organize ct out", ("ct",), goes_on=True),
    Command(f"{SLICES} annotate dataset/S1 heights.json", ("dataset", "heights.json")),
    Command(f"{SLICES} normalize annotated", ("annotated",), goes_on=True),
    Command(f"{SLICES} convert normalized -o out", ("normalized",), goes_on=True),
    Command(f"{SLICES} partition npz -o out", ("npz",), goes_on=True),
    Command(f"{SLICES} predict ct -o out/x.json", ("ct",)),
    Command(f"{SLICES} predict ct --all -o out --no-plot", ("ct",), goes_on=True, slow=True),
    Command(f"{SLICES} match ct --location 0.3 -o out/x.json", ("ct",), slow=True),
    Command(f"{SLICES} align ct ct -o out/x.json", ("ct",), slow=True),
    Command(
        f"{SLICES} train parts -o out/m.keras --backbone compact --random {QUICK_TRAINING}",
        ("parts",),
        slow=True,
        goes_on=True,
    ),
    Command(f"{SLICES} evaluate parts -o out", ("parts",), slow=True),
    Command(f"{NODULES} run ct -o out", ("ct",), slow=True),
    Command(f"{NODULES} phantom -o out", (), slow=True),
    Command(f"{NODULES} demo -o out", (), slow=True, goes_on=True),
    Command(f"{NODULES} batch ct -o out --workers 1", ("ct",), slow=True, goes_on=True),
    Command(f"{NODULES} features runs -o f.csv", ("runs",), goes_on=True, slow=True),
    Command(
        f"{NODULES} train-risk features.csv labels.csv -o out",
        ("features.csv", "labels.csv"),
        slow=True,
    ),
    Command(f"{NODULES} risk run", ("run",), slow=True, writes=False),
    Command(f"{NODULES} growth run run2 -o out", ("run", "run2"), slow=True),
    Command(
        f"{NODULES} prepare-luna luna annotations.csv store",
        ("luna", "annotations.csv"),
        goes_on=True,
    ),
    Command(f"{NODULES} prepare-lidc lidc store --agreement 1", ("lidc",), goes_on=True),
    Command(f"{NODULES} check store -o out", ("store",), slow=True),
    Command(f"{NODULES} export-arrays store -o out", ("store",)),
    Command(f"{NODULES} export-dicom run", ("run",), slow=True),
    Command(f"{NODULES} report run -o report.html", ("run",), slow=True),
    Command(f"{NODULES} unpack run -o out", ("run",), slow=True),
    Command(
        f"{NODULES} train store -o out/m.keras --preset tutorial --filters 1 {QUICK_TRAINING}",
        ("store",),
        slow=True,
        goes_on=True,
    ),
    Command(
        f"{NODULES} evaluate dice a.nrrd b.nrrd --json out.json --csv o/t.csv", ("a.nrrd", "b.nrrd")
    ),
    Command(
        f"{NODULES} evaluate detection --submission s.csv --annotations n.csv --seriesuids u.csv "
        "--json o/out.json --curve o/c.csv --plot p.png --nodules n2.csv --resamples 10",
        ("s.csv", "n.csv", "u.csv"),
    ),
    Command(
        f"{NODULES} evaluate lungs ct run/lungs.nii.gz --differences o/d.nrrd",
        ("ct", "run"),
        slow=True,
    ),
    Command(f"{NODULES} evaluate synthetic ct -o out --rounds 1", ("ct",), slow=True),
    Command(f"{NODULES} models list", (), writes=False),
    Command(f"{NODULES} models add toy.zip", ("toy.zip",)),
    Command(f"{NODULES} models check toy-onnx", (ADDED,), slow=True, writes=False),
    Command(f"{NODULES} models remove toy-onnx", (ADDED,)),
    Command(f"{NODULES} models convert m.keras", ("m.keras", "m.json"), slow=True),
)


def leaves(app: typer.Typer) -> set[str]:
    """The names of all commands, those of groups with the name of the group."""
    found = {
        one.name or one.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        for one in app.registered_commands
        if not one.hidden
    }
    for group in app.registered_groups:
        assert group.typer_instance
        found |= {f"{group.name} {name}" for name in leaves(group.typer_instance)}
    return found


def test_every_command_is_in_the_table() -> None:
    there = {SLICES: leaves(slice_app), NODULES: leaves(nodule_app)}
    for program, commands in there.items():
        lines = [one.line.removeprefix(program).strip() for one in COMMANDS if program in one.line]
        for command in commands:
            assert any(f"{line} ".startswith(f"{command} ") for line in lines), command


class Things:
    """What commands need, made once; some of it by other commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path:
        """Make a thing if it is not there."""
        path = self.folder / name
        if not path.exists():
            makers[name](self, path)
            assert path.exists(), name
        return path

    def run(self, line: str, place: str = "") -> Path:
        """Run a command without any fault; gives the folder it worked in."""
        code, said = run(line, self.folder / place)
        assert code == 0, said
        return self.folder / place


Make = Callable[[Things, Path], object]


def _ct(uid: str, date: str) -> Make:
    def make(_: Things, path: Path) -> None:
        path.mkdir()
        fields: dict[str, Any] = {"StudyDate": date}
        if uid:
            fields |= {"SeriesInstanceUID": uid, "StudyInstanceUID": f"{uid}.1"}
        hostile_makers.series(**fields)(path)

    return make


def _dataset(_: Things, path: Path) -> None:
    test_normalization.series(path / "S1")
    (path / "S1" / test_normalization.ANNOTATION).unlink()


def _npz(_: Things, path: Path) -> None:
    path.mkdir()
    pixels = np.arange(256 * 256, dtype=np.uint32).reshape(256, 256).astype(np.uint8)
    for n in range(6):
        LabelledSlice(np.roll(pixels, n), n / 10, f"1.2.{n}").write(path / f"{n}.npz")


def _parts(_: Things, path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256)).astype(np.uint8)
    for part in ("training", "validation", "testing"):
        (path / part).mkdir(parents=True)
        for n in range(4):
            LabelledSlice(np.roll(pixels, n), n / 10, "1.2.3").write(path / part / f"{n}.npz")


def _runs(things: Things, path: Path) -> None:
    path.mkdir()
    shutil.copytree(things("run"), path / "a")
    shutil.copytree(things("run"), path / "b")


def _luna(_: Things, path: Path) -> None:
    chests = {f"1.2.{n}": annotated_scans.chest(n) for n in (1, 2)}
    annotated_scans.write_luna(path.parent, chests)


def _lidc(things: Things, path: Path) -> None:
    shutil.copytree(things("ct"), path)
    [series] = list_series(path)
    ring = [(x, y) for x in range(14, 22) for y in range(30, 38) if {x, y} & {14, 21, 30, 37}]
    edge = "<edgeMap><xCoord>{}</xCoord><yCoord>{}</yCoord></edgeMap>"
    edges = "".join(edge.format(x, y) for x, y in ring)
    images = sorted(pydicom.dcmread(one).ImagePositionPatient[2] for one in path.iterdir())
    rois = "".join(
        f"<roi><imageZposition>{z:.6f}</imageZposition><inclusion>TRUE</inclusion>{edges}</roi>"
        for z in images[10:12]
    )
    (path / "reading.xml").write_text(
        '<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{series.uid}</SeriesInstanceUid></ResponseHeader><readingSession>"
        f"<unblindedReadNodule><noduleID>N</noduleID>{rois}</unblindedReadNodule>"
        "</readingSession></LidcReadMessage>"
    )


def _mask(shift: int) -> Make:
    def make(_: Things, path: Path) -> None:
        mask = np.zeros((10, 20, 20), np.uint8)
        mask[3:6, 5 + shift : 9 + shift, 5:9] = 1
        sitk.WriteImage(sitk.GetImageFromArray(mask), path)

    return make


def _detection(name: str) -> Make:
    rows = [(f"1.2.{n}", 10.0 * n, 0.0, 0.0) for n in range(4)]
    write = {
        "s.csv": lambda path: submissions.write_submission(path, [(*row, 0.5) for row in rows]),
        "n.csv": lambda path: submissions.write_findings(path, [(*row, 8) for row in rows]),
        "u.csv": lambda path: submissions.write_uids(path, [row[0] for row in rows]),
    }[name]
    return lambda _, path: write(path)


def _added(things: Things, path: Path) -> None:
    copy([things("toy.zip")], path.parent)
    things.run(f"{NODULES} models add toy.zip", path.parent.name)


def _zip(_: Things, path: Path) -> None:
    folder = path.parent / "toy"
    folder.mkdir()
    toy_models.zipped(toy_models.onnx_model(folder), folder, path)


def _keras(_: Things, path: Path) -> None:
    program = "import sys, pathlib, coded_scans; coded_scans.save_reader(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, cwd=Path(__file__).parent
    )
    path.with_suffix(".onnx").unlink()
    card = json.loads(path.with_suffix(".json").read_text())
    del card["files"][f"{path.stem}.onnx"]
    path.with_suffix(".json").write_text(json.dumps(card))


makers: dict[str, Make] = {
    "ct": _ct("", "20230101"),
    "ct2": _ct("1.2.3.4", "20240101"),
    "dataset": _dataset,
    "heights.json": lambda _, path: path.write_text('{"landmarks": {"C7": {"z_mm": 30.0}}}'),
    "annotated": lambda _, path: test_normalization.series(path / "S1"),
    "normalized": lambda things, path: (
        shutil.copytree(things("annotated"), path),
        things.run(f"{SLICES} normalize normalized"),
    ),
    "npz": _npz,
    "parts": _parts,
    "run": lambda things, _: things("ct") and things.run(f"{NODULES} run ct -o run"),
    "run2": lambda things, _: things("ct2") and things.run(f"{NODULES} run ct2 -o run2"),
    "runs": _runs,
    "luna": _luna,
    "annotations.csv": lambda things, _: things("luna"),
    "store": lambda things, _: (
        things("luna")
        and things.run(f"{NODULES} prepare-luna luna annotations.csv store --neighbours 0")
    ),
    "lidc": _lidc,
    "features.csv": lambda _, path: risk_tables.write(path, risk_tables.cohort()[0]),
    "labels.csv": lambda _, path: risk_tables.write(path, risk_tables.cohort()[1]),
    "a.nrrd": _mask(0),
    "b.nrrd": _mask(1),
    **{name: _detection(name) for name in ("s.csv", "n.csv", "u.csv")},
    "toy.zip": _zip,
    ADDED: _added,
    "m.keras": _keras,
    "m.json": lambda things, _: things("m.keras"),
}


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Things:
    """Everything that is needed, made when it is."""
    return Things(tmp_path_factory.mktemp("things"))


def run(line: str, folder: Path, fault: Fault = NO_FAULT) -> tuple[int, str]:
    """Run a command in a folder; its exit code and what it said."""
    process = start(line, folder, fault)
    process.join(TIMEOUT_S)
    if process.exitcode is None:
        process.kill()
        pytest.fail(f"{line} hangs")
    return process.exitcode, (folder.parent / SAID).read_text(errors="replace")


class Place:
    """A folder with what a command needs, in which it is run."""

    def __init__(self, command: Command, things: Things, folder: Path) -> None:
        self.command, self.folder = command, folder / "work"
        copy([things(name) for name in command.needs], self.folder)
        self.before = tree(self.folder)

    def run(self, fault: Fault = NO_FAULT) -> tuple[int, str]:
        """Run the command."""
        return run(self.command.line, self.folder, fault)

    @property
    def changes(self) -> int:
        """How many changes the last run made."""
        return int((self.folder.parent / CHANGES).read_text())

    @property
    def new(self) -> dict[str, int]:
        """What is new, or has another size, with its size, hidden or not."""
        own = self.command.words.startswith(f"{NODULES} models")
        found = {
            name: size
            for name, size in tree(self.folder).items()
            if self.before.get(name) != size and (own or not name.startswith(SETTINGS))
        }
        return found | {name: -1 for name in self.before if not (self.folder / name).exists()}

    @property
    def shown(self) -> set[str]:
        """What is new and not hidden."""
        return {
            name
            for name in self.new
            if not any(part.startswith(".") for part in Path(name).parts if part != SETTINGS)
        }


def refused(code: int, said: str) -> None:
    """Fail unless a command ended with one sentence, and without success."""
    assert code in (1, 2), (code, said)
    assert "Traceback" not in said and "Internal error" not in said, said
    if code == 2:
        sentences = [line for line in said.splitlines() if line.startswith("Error: ")]
        if sentences or "is not readable" not in said:  # which is said in a box
            assert len(sentences) == 1 and sentences[0].endswith("."), said


@pytest.fixture(scope="session")
def clean(
    things: Things, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Command], tuple[dict[str, int], int]]:
    """Give what a command makes where nothing happens, and in how many changes."""
    known: dict[str, tuple[dict[str, int], int]] = {}

    def made(command: Command) -> tuple[dict[str, int], int]:
        if command.line not in known:
            place = Place(command, things, tmp_path_factory.mktemp("clean"))
            code, said = place.run()
            assert code == 0, said
            assert bool(place.new) == command.writes, place.new
            assert set(place.new) == place.shown
            known[command.line] = place.new, place.changes
        return known[command.line]

    return made


def same(found: dict[str, int], expected: dict[str, int]) -> None:
    """Fail unless the same files were made, of about the same size, but for lists of errors."""
    found, expected = (
        {
            # TensorBoard names its logs by the time, one a start, and writes them with delay.
            re.sub(r"tfevents.*", "tfevents", name): 0 if "tfevents" in name else size
            for name, size in files.items()
            if not name.endswith("errors.csv")
        }
        for files in (found, expected)
    )
    assert found.keys() == expected.keys()
    for name, size in found.items():
        assert abs(size - expected[name]) <= 64 + 0.05 * size, (name, size, expected[name])


def table(commands: list[Command]) -> pytest.MarkDecorator:
    """A test for each command, and among the slow tests one at more moments."""
    return pytest.mark.parametrize(
        ("command", "thorough"),
        [
            pytest.param(
                one,
                thorough,
                marks=[pytest.mark.slow] * thorough,
                id=one.line.partition(" ")[2] + ", thoroughly" * thorough,
            )
            for one in commands
            for thorough in ([True] if one.slow else [False, True])
        ],
    )


Clean = Callable[[Command], tuple[dict[str, int], int]]
WRITING = [one for one in COMMANDS if one.writes]
READING = [one for one in COMMANDS if set(one.needs) - {ADDED}]


@table(WRITING)
def test_killed_and_run_again(
    command: Command, thorough: bool, things: Things, clean: Clean, tmp_path: Path
) -> None:
    made, changes = clean(command)
    moments = {changes // 2, changes - 2}
    if thorough:
        moments |= {0, 1, changes // 4, changes // 3, changes - 4, changes - 3, changes - 1}
    for moment in sorted(moments & set(range(changes))):
        place = Place(command, things, tmp_path / str(moment))
        code, said = place.run(Fault(moment))
        if code != -signal.SIGKILL:
            assert code == 0, said  # fewer changes this time
            continue
        assert command.goes_on or place.shown <= made.keys()
        code, said = place.run()
        if code:  # it had done all its work
            refused(code, said)
            same({name: size for name, size in place.new.items() if name in place.shown}, made)
        else:
            same(place.new, made)


@table(WRITING)
def test_interrupted(
    command: Command, thorough: bool, things: Things, clean: Clean, tmp_path: Path
) -> None:
    """Ctrl-C is answered by one line, and leaves no empty folder."""
    made, changes = clean(command)
    moments = {changes // 2, *([0, 1, changes // 4, changes - 2] if thorough else [])}
    for moment in sorted(moments & set(range(changes))):
        place = Place(command, things, tmp_path / str(moment))
        before = set(place.folder.rglob("*"))
        code, said = place.run(Fault(moment, signal.SIGINT))
        if code == 0:  # fewer changes this time
            continue
        assert code == INTERRUPTED and said.splitlines().count("Cancelled.") == 1, said
        assert "Traceback" not in said, said
        assert command.goes_on or place.shown <= made.keys(), place.shown
        new = set(place.folder.rglob("*")) - before
        assert not [one for one in new if one.is_dir() and not any(one.iterdir())]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; only root can have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=False)
        if os.geteuid() == 0
        else None
    )
    if done is None or done.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@table(WRITING)
def test_a_full_disk(
    command: Command, thorough: bool, things: Things, clean: Clean, small_disk: Path
) -> None:
    made, _ = clean(command)
    needed = sum(size for size in made.values() if size > 0)
    for room in {needed // 2, *([0, needed // 4] if thorough else [])}:
        place = Place(command, things, small_disk / str(room))
        (place.folder.parent / SAID).symlink_to(small_disk.parent / SAID)
        (place.folder.parent / CHANGES).symlink_to(small_disk.parent / CHANGES)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as stream:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            os.posix_fallocate(stream.fileno(), 0, max(free - room, 4096))
        code, said = place.run()
        if made.keys() == {name for name in made if made[name] < 0}:
            assert code == 0, said  # removing needs no room
        else:
            refused(code, said)
            assert command.goes_on or not place.shown, place.shown
        filler.unlink()
        if code:
            code, said = place.run()
            assert code == 0, said
            same(place.new, made)
        shutil.rmtree(place.folder)


def set_rights(folder: Path, folders: int, files: int) -> None:
    for one in sorted([folder, *folder.rglob("*")], reverse=True):
        if not one.is_symlink():
            one.chmod(folders if one.is_dir() else files)


@table(WRITING)
def test_no_permission_to_write(
    command: Command, thorough: bool, things: Things, tmp_path: Path
) -> None:
    del thorough  # there is one way only
    place = Place(command, things, tmp_path)
    set_rights(place.folder, 0o500, 0o400)
    code, said = place.run(Fault(powerless=True))
    set_rights(place.folder, 0o700, 0o600)
    refused(code, said)
    assert "ermission denied" in said, said
    assert not place.new


@table(READING)
def test_no_permission_to_read(
    command: Command, thorough: bool, things: Things, tmp_path: Path
) -> None:
    for folders, files in ((0o700, 0o000), (0o000, 0o000))[: 1 + thorough]:
        place = Place(command, things, tmp_path / str(folders))
        for name in command.needs:
            thing = place.folder / name
            set_rights(thing, folders, files)
        code, said = place.run(Fault(powerless=True))
        set_rights(place.folder, 0o700, 0o600)
        refused(code, said)
        assert command.goes_on or not place.shown, place.shown


@table(WRITING)
def test_two_writers(
    command: Command, thorough: bool, things: Things, clean: Clean, tmp_path: Path
) -> None:
    made, changes = clean(command)
    moments = {changes // 2, *([0, 1, changes // 3, changes - 2] if thorough else [])}
    for moment in sorted(moments & set(range(changes))):
        place = Place(command, things, tmp_path / str(moment))
        first = start(command.line, place.folder, Fault(moment, signal.SIGSTOP))
        stopped = place.folder.parent / STOPPED
        while not stopped.exists() and first.exitcode is None:
            time.sleep(0.01)
        (place.folder.parent / SAID).rename(place.folder.parent / "first")
        with ExitStack() as after:
            after.callback(first.join, TIMEOUT_S)
            assert first.pid
            after.callback(os.kill, first.pid, signal.SIGCONT)
            second, said = place.run()
        assert first.exitcode is not None
        assert 0 in (first.exitcode, second), ((place.folder.parent / "first").read_text(), said)
        if first.exitcode:
            refused(first.exitcode, (place.folder.parent / "first").read_text())
        if second:
            refused(second, said)
        same(place.new, made)
