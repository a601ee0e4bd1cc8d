"""The extension as Slicer gets it: its lists of files, its metadata, and its installed layout."""

import ast
import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from PIL import Image

import run_in_slicer
from conftest import PANEL_TESTS
from CTLungScreeningLib import __version__
from extension_files import (
    MODULES,
    PACKAGES,
    ROOT,
    module_files,
    package_name,
    requirements,
    requirements_files,
    with_bounds,
    with_lists,
)

INSTALLED = Path("lib/Slicer-5.12/qt-scripted-modules")
BUNDLED = {"numpy", "packaging", "pip", "scipy", "simpleitk", "slicer-core", "vtk"}
"""What Slicer brings in every version that we support, or is Slicer."""

_OF_BOTH = {"tensorflow", "python-gdcm"}
NOT_IMPORTED = {"CTSliceTools": _OF_BOTH, "LungNoduleSeg": _OF_BOTH | {"cryptography"}}
"""What is needed although no file has to import it: Keras' backend, pydicom's decoder, and the
certificates of a Dask cluster.
"""

OPTIONAL = {"openvino"}
"""What is used where the user has installed it."""

SLICER_MODULES = {"SampleData", "ctk", "qt", "slicer"}

ENTRY_FIELDS: dict[str, type] = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "dicom_support_rule": str,
    "enabled": bool,
    "tier": int,
}
"""Of slicer-extension-catalog-entry-schema-v1.0.2.json, which allows no others."""


@pytest.fixture(scope="module")
def checkout() -> None:
    """Skip unless git knows which files belong to the modules."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("module", MODULES)
def test_lists_name_the_files_of_the_module(module: str) -> None:
    written = (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8")
    assert written == with_lists(module), "run `make lists`"


@pytest.mark.parametrize("module", MODULES)
def test_requirements_have_the_bounds_of_pyproject(module: str) -> None:
    for file in requirements_files(module):
        assert file.read_text(encoding="utf-8") == with_bounds(file), "run `make lists`"
        for line in requirements(file):
            assert [one.operator for one in Requirement(line).specifier] == [">="], line


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("module", MODULES)
def test_requirements_are_what_the_module_imports(module: str) -> None:
    imported = imported_packages("CTSliceTools") | imported_packages(module)
    files = requirements_files(module)
    listed = {package_name(line) for file in files for line in requirements(file)}
    listed = {name.removesuffix("-cpu") for name in listed}
    needed = imported - BUNDLED - OPTIONAL - NOT_IMPORTED[module]
    assert needed == listed - NOT_IMPORTED[module], f"change the names in {files}"
    assert listed >= NOT_IMPORTED[module]


def imported_packages(module: str) -> set[str]:
    """Distributions that the Python files of a module import, in lower case."""
    names = set()
    for file in module_files(module):
        if not file.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / module / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    tops = {name.split(".")[0] for name in names}
    tops -= set(sys.stdlib_module_names) | SLICER_MODULES | OPTIONAL | set(PACKAGES)
    distributions = packages_distributions()
    return {distributions[top][0].lower().removesuffix("-cpu") for top in tops}


def test_index_entry_is_valid_for_its_schema() -> None:
    entry = json.loads((ROOT / "docs" / "CTLungScreening.json").read_text(encoding="utf-8"))
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(ENTRY_FIELDS)
    for name, value in entry.items():
        assert type(value) is ENTRY_FIELDS[name], name
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert 1 <= entry["tier"] <= 5
    assert entry["scm_type"] == "git"
    repository = urlsplit(entry["scm_url"])
    assert repository.scheme == "https"
    assert repository.path.rsplit("/", 1)[1].startswith("Slicer")
    homepage = cmake_value("EXTENSION_HOMEPAGE")
    assert entry["scm_url"] == f"{homepage}.git"
    for module in MODULES:
        source = (ROOT / module / f"{module}.py").read_text(encoding="utf-8")
        assert f'parent.categories = [_("{entry["category"]}")]' in source


def cmake_value(name: str) -> str:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(rf'set\({name} "([^"]+)"\)', text)
    assert found, name
    return found[1]


def test_pictures_of_the_metadata_are_there() -> None:
    (icon,) = pictures("EXTENSION_ICONURL")
    assert Image.open(icon).size == (128, 128)
    assert icon.with_suffix(".svg").exists()
    for screenshot in pictures("EXTENSION_SCREENSHOTURLS"):
        assert min(Image.open(screenshot).size) > 300
    for module in MODULES:
        icon = ROOT / module / "Resources" / "Icons" / f"{module}.png"
        assert Image.open(icon).size == (128, 128)
        assert icon.with_suffix(".svg").exists()


def pictures(name: str) -> list[Path]:
    repository = urlsplit(cmake_value("EXTENSION_HOMEPAGE")).path
    files = []
    for address in cmake_value(name).split():
        parts = urlsplit(address)
        assert parts.netloc == "raw.githubusercontent.com"
        assert parts.path.startswith(f"{repository}/main/")
        files.append(ROOT / parts.path.removeprefix(f"{repository}/main/"))
    return files


def test_citation_and_change_log_know_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert f"\nrepository-code: {cmake_value('EXTENSION_HOMEPAGE')}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(__version__)}\b", changes, re.MULTILINE)


def test_slicer_runs_the_tests_of_the_panels_and_is_not_content_with_none() -> None:
    assert [f"{name}.py" for name in run_in_slicer.panel_tests()] == list(PANEL_TESTS)
    assert not run_in_slicer.run([])


def test_in_slicer_a_test_that_logs_an_error_has_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "noisy_tests.py").write_text(
        "import logging, unittest\n"
        "class Noisy(unittest.TestCase):\n"
        "    def test_quiet(self): logging.warning('only this')\n"
        "    def test_expected(self):\n"
        "        with self.assertLogs(level='ERROR'): logging.error('asked for')\n"
        "    def test_loud(self): logging.getLogger().handle(logging.makeLogRecord(\n"
        "        {'msg': 'Unable to', 'levelno': logging.ERROR, 'levelname': 'ERROR'}))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(run_in_slicer.slicer_host, "is_real", lambda: False)
    assert run_in_slicer.run(["noisy_tests.Noisy.test_quiet", "noisy_tests.Noisy.test_expected"])
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # else the error would fail this test as well
    assert not run_in_slicer.run(["noisy_tests.Noisy.test_loud"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which Slicer would find the modules, as cmake installs them."""
    cmake = Path(sysconfig.get_path("scripts")) / "cmake"
    if not cmake.with_suffix(".exe").exists() and not cmake.exists():
        pytest.skip("cmake is not installed")
    folder = tmp_path_factory.mktemp("extension")
    configured = run(
        [
            cmake,
            "-S",
            ROOT,
            "-B",
            folder / "build",
            f"-DSlicer_DIR={(ROOT / 'Testing' / 'slicer_stub').as_posix()}",
            f"-DCMAKE_INSTALL_PREFIX={(folder / 'installed').as_posix()}",
        ]
    )
    if "CMAKE_C_COMPILER could be found" in configured.stderr:
        pytest.skip("cmake finds no compiler, which it asks for although nothing is compiled")
    assert configured.returncode == 0, configured.stderr
    done = run([cmake, "--install", folder / "build"])
    assert done.returncode == 0, done.stderr
    return folder / "installed" / INSTALLED


@pytest.fixture(scope="module")
def alone(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for `python -S` with the installed layout and packages, but no checkout."""
    packages = tmp_path_factory.mktemp("packages")
    for one in Path(sysconfig.get_path("purelib")).iterdir():
        if one.suffix != ".pth" and not one.name.startswith(("__editable__", "CTLung", "ctlung")):
            (packages / one.name).symlink_to(one, one.is_dir())
    paths = os.pathsep.join([str(installed), str(packages)])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


def run(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )


def test_nothing_but_files_of_the_modules_is_installed(installed: Path) -> None:
    found = {one.name for one in installed.iterdir()}
    expected = {f"{module}.py" for module in MODULES} | set(PACKAGES)
    assert found == expected | {"Resources"}


@pytest.mark.parametrize("library", [f"{module}Lib" for module in MODULES])
def test_command_lines_start_on_the_installed_layout(
    installed: Path, alone: dict[str, str], tmp_path: Path, library: str
) -> None:
    code = f"import {library}.cli as it; print(it.__file__)"
    done = run([sys.executable, "-S", "-c", code], cwd=tmp_path, env=alone)
    assert done.stdout.strip() == str(installed / library / "cli.py"), done.stderr
    assert run([sys.executable, "-S", "-m", library, "--help"], cwd=tmp_path, env=alone).stdout


@pytest.mark.slow
def test_a_phantom_is_segmented_on_the_installed_layout(
    alone: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-S", "-m", "LungNoduleSegLib"]
    for arguments in (["phantom", "-o", "phantom"], ["run", "phantom/dicom", "-o", "results"]):
        done = run([*command, *arguments], cwd=tmp_path, env=alone)
        assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "results" / "run.json").read_text(encoding="utf-8"))
    assert record["software"]["CTLungScreening"] == __version__
    rows = (tmp_path / "results" / "nodules.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 1


@pytest.fixture(scope="module")
def slicers_python() -> str:
    """A Python of the version that Slicer 5.12 has."""
    pyenv = Path.home() / ".pyenv" / "versions"
    candidates = [sys.executable, "python3.12", *map(str, pyenv.glob("3.12.*/bin/python"))]
    code = "import sys; print(sys.version_info[:2] == (3, 12))"
    for one in candidates:
        with suppress(OSError):
            if run([one, "-c", code]).stdout.strip() == "True":
                return one
    pytest.skip("there is no Python 3.12, which Slicer 5.12 has")


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_requirements_leave_what_slicer_bundles_alone(module: str, slicers_python: str) -> None:
    """Pip finds wheels for Slicer 5.12's Python that go with what it brings."""
    pip = [sys.executable, "-m", "pip", f"--python={slicers_python}"]
    options = ["--dry-run", "--ignore-installed", "--quiet", "--only-binary=:all:", "--report=-"]
    constraints = f"--constraint={Path(__file__).parent / 'slicer_bundled.txt'}"
    try_index = run([*pip, "install", *options, "typer"])
    if try_index.returncode:
        pytest.skip(f"no package index can be reached: {try_index.stderr[-200:]}")
    for file in requirements_files(module):
        done = run([*pip, "install", *options, constraints, f"-r{file}"])
        assert done.returncode == 0, done.stderr
        found = {one["metadata"]["name"].lower() for one in json.loads(done.stdout)["install"]}
        wanted = [Requirement(line) for line in requirements(file)]
        assert {one.name for one in wanted if not one.marker or one.marker.evaluate()} <= found
