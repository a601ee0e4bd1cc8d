"""Open both panels where nothing can be imported that is installed only for the first run.

Another extension has put pydicom 2 in place of Slicer's own.

PANEL_PROCESS=1 python Testing/minimal_slicer.py
"""

import re
import sys
import unittest
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
BROUGHT = {"numpy", "pydicom", "simpleitk", "scipy", "vtk", "pyside6", "shiboken6", "slicer-core"}
"""What Slicer brings, and what stands in for Slicer here."""


def missing_packages() -> set[str]:
    """Name what the modules' requirements name and Slicer does not bring, as it is imported."""
    wanted: set[str] = set()
    for module in ("CTSliceTools", "LungNoduleSeg"):
        for file in (ROOT / module / "Resources" / module).glob("requirements*.txt"):
            wanted |= {
                name.lower() for name in re.findall(r"^\w[\w-]*", file.read_text(), re.MULTILINE)
            }
    found = packages_distributions()
    return {
        package
        for package, names in found.items()
        if {name.lower() for name in names} & (wanted - BROUGHT)
    }


class Missing(MetaPathFinder):
    """Finds nothing for what is missing, and says so."""

    def __init__(self, packages: set[str]) -> None:
        self._packages = packages

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Refuse what is missing and leave the rest to others."""
        if fullname.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def main() -> None:
    """Open the panels."""
    packages = missing_packages()
    already = {name.partition(".")[0] for name in sys.modules} & packages
    assert not already, f"{already} were imported before the test"
    sys.meta_path.insert(0, Missing(packages))
    import pydicom  # noqa: F401 - needs its own `pixels`

    sys.modules["pydicom.pixels"] = None  # type: ignore[assignment]  # new in pydicom 3
    import slicer_host

    try:
        slicer_host.start()
    except unittest.SkipTest as reason:
        sys.exit(str(reason))
    from panel_host import open_panel

    for name in ("CTSliceTools", "LungNoduleSeg"):
        open_panel(name)
        print(f"{name} is open")


if __name__ == "__main__":
    main()
