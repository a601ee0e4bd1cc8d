"""The batch examples of docs/batch.md, run as they stand there, on slicer-core."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk

from coded_scans import HEIGHT, coded_volume, upright
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom

pytest.importorskip("slicer", reason="slicer-core is not installed")

DOC = Path(__file__).parents[1] / "docs" / "batch.md"


def example(number: int, folder: Path) -> Path:
    """An example of the page as a file."""
    codes = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    file = folder / "batch.py"
    file.write_text(codes[number], encoding="utf-8")
    return file


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The example that localizes slices."""
    return example(0, tmp_path)


@pytest.fixture
def nodule_script(tmp_path: Path) -> Path:
    """The example that finds nodules."""
    return example(1, tmp_path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder for scans, with a file that is none, and one for results."""
    scans, results = tmp_path / "scans", tmp_path / "results"
    scans.mkdir()
    results.mkdir()
    (scans / "broken.nrrd").write_bytes(b"no scan")
    return scans, results


def run(script: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, (script, *arguments))]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def heights(done: subprocess.CompletedProcess[str], scan: str) -> dict[str, float]:
    """Where the landmarks of a scan are, as printed."""
    found = re.findall(rf"^{re.escape(scan)}: (.+) at z = (-?\d+) mm$", done.stdout, re.MULTILINE)
    return {name: float(z_mm) for name, z_mm in found}


@pytest.mark.parametrize("number", [0, 1])
def test_a_scan_that_cannot_be_used_is_named(
    number: int, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run(example(number, tmp_path), *folders)
    assert done.returncode == 1
    assert re.match(r"broken\.nrrd: .*broken\.nrrd", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folders[1].iterdir())


@pytest.mark.slow
def test_scans_become_scenes_and_are_not_done_twice(
    script: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    scans, results = folders
    sitk.WriteImage(coded_volume(upright()), scans / "chest.nrrd")
    model = tmp_path / "reader.keras"
    code = "import sys, pathlib, coded_scans; coded_scans.save_reader(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, model], cwd=Path(__file__).parent, check=True)
    done = run(script, scans, results, model)
    assert "broken.nrrd: " in done.stderr
    found = heights(done, "chest.nrrd")
    assert len(found) >= 6
    assert all(abs(z_mm - HEIGHT[name]) < 10 for name, z_mm in found.items()), found
    assert [file.name for file in results.iterdir()] == ["chest.nrrd.mrb"]
    (scans / "broken.nrrd").unlink()
    again = run(script, scans, results, model)
    assert (again.returncode, again.stdout) == (0, "")


@pytest.mark.slow
def test_with_the_bundled_model_on_a_real_scan(
    script: Path, folders: tuple[Path, Path], shared_data: Path
) -> None:
    if not DEFAULT_MODEL.exists():
        pytest.skip(f"there is no {DEFAULT_MODEL.name} yet")
    scans, results = folders
    (scans / "broken.nrrd").unlink()
    name = "TotalSegmentator_example.nii.gz"
    (scans / name).symlink_to(shared_data / name)
    done = run(script, *folders)
    assert done.returncode == 0, done.stderr
    assert len(heights(done, name)) >= 2
    assert (results / f"{name}.mrb").stat().st_size > 100_000


@pytest.mark.slow
def test_nodules_of_a_phantom_become_a_scene(
    nodule_script: Path, folders: tuple[Path, Path]
) -> None:
    scans, results = folders
    (scans / "broken.nrrd").unlink()
    phantom = make_phantom(PhantomSpec())
    sitk.WriteImage(phantom.image, scans / "chest.nrrd")
    done = run(nodule_script, *folders)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^chest\.nrrd: nodule \d+, [\d.]+ mm$", done.stdout, re.MULTILINE)
    assert (results / "chest.nrrd.mrb").stat().st_size > 100_000
