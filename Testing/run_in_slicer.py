"""Run the tests of the panels in Slicer; its status is 1 if one fails, or if there is none.

    Slicer --testing --no-splash --ignore-slicerrc --disable-cli-modules \\
        --additional-module-paths CTSliceTools LungNoduleSeg \\
        --python-script Testing/run_in_slicer.py [TEST ...]

With any other Python they run on the stand-in of `slicer_host`.
"""

import re
import sys
import unittest
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

import slicer_host  # noqa: E402


def panel_tests() -> list[str]:
    """Give the names of the tests that CMakeLists.txt hands to Slicer."""
    lists = (FOLDER / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.findall(r"^  (test_\w+)\.py$", lists, re.MULTILINE)


def run(names: list[str]) -> bool:
    """Run test modules; tell whether there were tests and all of them passed."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    done = result.testsRun - len(result.skipped)
    print(f"{done} tests run, {len(result.skipped)} skipped")
    return result.wasSuccessful() and done > 0


def main() -> int:
    """Run all of them, or those that are named; return the status to end with."""
    if sys.version_info < (3, 11):  # noqa: UP036 - Slicer brings its own
        print("This Slicer is too old: its Python is older than 3.11.")
        return 1
    slicer_host.start()
    return 0 if run(sys.argv[1:] or panel_tests()) else 1


if __name__ == "__main__":
    status = main()
    if slicer_host.is_real():
        import slicer

        slicer.util.exit(status)
    else:
        sys.exit(status)
