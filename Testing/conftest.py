"""What the tests share."""

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

PANEL_TESTS = ("test_slicer_host.py", "test_panel_parts.py", "test_ct_slice_tools_panel.py")
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
