"""Run the tests of the panels in Slicer; its status is 1 if one fails, or if there is none.

A test also fails if an error of Python, Qt or VTK comes into Slicer's log meanwhile, and the whole
run if one came while Slicer started.

    Slicer --testing --no-splash --ignore-slicerrc --disable-cli-modules \\
        --additional-module-paths CTSliceTools LungNoduleSeg \\
        --python-script Testing/run_in_slicer.py [TEST ...]

With any other Python they run on the stand-in of `slicer_host`.
"""

import logging
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


ERRORS = ("[ERROR]", "[CRITICAL]", "[FATAL]")
"""How lines of Slicer's log begin that say what must not be."""


class Log(logging.Handler):
    """The errors that were logged, by Python and, in Slicer, by whatever else."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._records: list[str] = []
        self._read = 0
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record.getMessage())

    def errors(self) -> list[str]:
        """Give those since the last call."""
        found, self._records = self._records, []
        if slicer_host.is_real():
            import slicer

            text = Path(slicer.app.errorLogModel().filePath).read_bytes()
            new, self._read = text[self._read :].decode(errors="replace"), len(text)
            found += [line for line in new.splitlines() if line.startswith(ERRORS)]
        return list(dict.fromkeys(found))


class StrictResult(unittest.TextTestResult):
    """Counts a test as failed if it has logged an error."""

    log: Log

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        errors = self.log.errors()
        if errors:
            try:
                raise AssertionError("\n".join(["errors were logged:", *errors]))
            except AssertionError:
                self.addFailure(test, sys.exc_info())
        else:
            super().addSuccess(test)


def run(names: list[str]) -> bool:
    """Run test modules; tell whether there were tests, all of them passed and no error came."""
    StrictResult.log = Log()
    try:
        for error in (early := StrictResult.log.errors()):
            print(f"Logged while Slicer started: {error}")
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        runner = unittest.TextTestRunner(verbosity=2)
        runner.resultclass = StrictResult  # type: ignore[assignment]
        result = runner.run(suite)
        done = result.testsRun - len(result.skipped)
        print(f"{done} tests run, {len(result.skipped)} skipped")
        return result.wasSuccessful() and done > 0 and not early
    finally:
        logging.getLogger().removeHandler(StrictResult.log)


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
