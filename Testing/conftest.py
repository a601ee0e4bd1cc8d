"""What the tests share."""

import logging
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from LungNoduleSegLib.phantom.chest import Phantom
    from LungNoduleSegLib.risk.growth import ChestScan
    from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
    from review_cases import Case

# In CI the examples are the same each time; elsewhere new ones are tried.
settings.register_profile("no test on time", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("no test on time")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

CMAKE_LISTS = Path(__file__).parent / "CMakeLists.txt"
# What runs remember of themselves is none of the user's.
os.environ.setdefault("CTLUNGSCREENING_SETTINGS", tempfile.mkdtemp(prefix="settings-"))

PANEL_TESTS = tuple(re.findall(r"^  (test_\w+\.py)$", CMAKE_LISTS.read_text(), re.MULTILINE))
"""Files that need Qt, which does not go with TensorFlow nor with pytest-xdist's threads.

`test_panels.py` runs each in a process of its own.
"""

collect_ignore = [] if "PANEL_PROCESS" in os.environ else list(PANEL_TESTS)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT scans; tests that need it are skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real CT scans are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which an error is logged, as Slicer's log shows it; `assertLogs` takes it."""
    yield
    errors = [
        one.getMessage() + (f"\n{one.exc_text}" if one.exc_text else "")
        for when in ("setup", "call")
        for one in caplog.get_records(when)
        if one.levelno >= logging.ERROR
    ]
    assert not errors, "\n".join(errors)


@pytest.fixture(scope="module")
def phantom(request: pytest.FixtureRequest) -> "Phantom":
    """The phantom of a test module's SPEC."""
    from LungNoduleSegLib.phantom.chest import make_phantom

    return make_phantom(request.module.SPEC)


@pytest.fixture(scope="module")
def files(phantom: "Phantom", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of `phantom`, see `write_phantom`."""
    from LungNoduleSegLib.phantom.chest import write_phantom

    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(phantom, folder)
    return folder


@pytest.fixture
def logic() -> "Iterator[LungNoduleSegLogic]":
    """The logic of LungNoduleSeg on a scene that is empty before and after."""
    import slicer

    from CTLungScreeningSlicer.scene import mrml_host
    from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic

    mrml_host.start().Clear()
    yield LungNoduleSegLogic()
    slicer.mrmlScene.Clear()


@pytest.fixture
def plain(logic: "LungNoduleSegLogic", tmp_path: Path) -> "Case":
    """A run in the scene of `logic`, on a scan whose axes are those of LPS."""
    from review_cases import make_case

    return make_case(logic, tmp_path / "run", "LPS")


@pytest.fixture
def chest() -> "ChestScan":
    """A chest for tests of growth, see `growth_cases.chest_scan`."""
    from growth_cases import chest_scan

    return chest_scan()


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A localizer that reads the locations of coded scans, see `coded_scans.save_reader`."""
    from coded_scans import save_reader

    return save_reader(tmp_path_factory.mktemp("model") / "reader.keras")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A heap of DICOM files, see `dicom_heaps.heap`."""
    from dicom_heaps import heap

    return heap(tmp_path / "source")


@pytest.fixture
def heeding_hangup() -> Iterator[None]:
    """Have the programs of a test heed SIGHUP, although nohup may have started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
