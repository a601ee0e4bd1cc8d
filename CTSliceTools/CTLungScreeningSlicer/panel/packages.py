"""Python packages that a run needs: installed on first need, after asking, and nothing replaced."""

import importlib.metadata
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import slicer
from slicer.i18n import tr as _

try:
    from packaging.requirements import Requirement
except ImportError:  # Slicer 5.6
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]


def read_requirements(file: Path) -> list[Requirement]:
    """Read a requirements file, and those it includes with `-r`; other options are left out."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.split(" #")[0].strip()
        if text.startswith("-r "):
            found += read_requirements(file.parent / text.removeprefix("-r ").strip())
        elif text and text[0] not in "#-":
            found.append(Requirement(text))
    return found


def missing_requirements(file: Path) -> list[Requirement]:
    """Give the requirements of this computer that are not met."""
    importlib.invalidate_caches()
    return [
        one
        for one in read_requirements(file)
        if (one.marker is None or one.marker.evaluate()) and not _is_met(one)
    ]


def _is_met(requirement: Requirement) -> bool:
    """Tell whether a package is there, or the same one under its name for computers with a GPU."""
    for name in (requirement.name, requirement.name.removesuffix("-cpu")):
        with suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            return requirement.specifier.contains(version, prereleases=True)
    return False


def installed_constraints(missing: list[Requirement]) -> list[str]:
    """Pin each package that is installed, so that pip leaves those of Slicer and of others alone.

    Packages that are `missing` in a newer version are not pinned.
    """
    free = {_plain(one.name) for one in missing}
    pins = {
        _plain(one.metadata["Name"]): f"{one.metadata['Name']}=={one.version}"
        for one in importlib.metadata.distributions()
        if one.metadata["Name"] and "+" not in one.version
    }
    return [pin for name, pin in sorted(pins.items()) if name not in free]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def ensure_packages(file: Path, requester: str) -> bool:
    """See that the packages of a requirements.txt are there; install them if the user agrees.

    What is installed already stays at its version. If pip fails, one message names the command
    that can be run by hand.

    Args:
        file: the module's requirements.txt.
        requester: title of the module, for the question.

    Returns:
        Whether all of them are there now.
    """
    missing = missing_requirements(file)
    if not missing:
        return True
    with _constraints_file(installed_constraints(missing)) as constraints:
        try:
            if not _install(missing, constraints, requester):
                return False
        except (subprocess.CalledProcessError, RuntimeError, OSError) as problem:
            if "declined" in str(problem):
                return False
            logging.exception("pip failed")
    importlib.invalidate_caches()
    missing = missing_requirements(file)
    if missing:
        slicer.util.errorDisplay(failure_message(missing))
    return not missing


def failure_message(missing: list[Requirement]) -> str:
    """Say that packages could not be installed, and the command that installs them."""
    names = " ".join(f'"{one}"' for one in missing)
    return _(
        "Python packages could not be installed: see that this computer reaches the internet, "
        "then try again, or run this command in a terminal:\n\nPythonSlicer -m pip install {names}"
    ).format(names=names)


def _install(missing: list[Requirement], constraints: Path, requester: str) -> bool:
    with _wheels_only():
        try:
            from slicer.packaging import pip_ensure  # noqa: PLC0415 - new in Slicer 5.12
        except ImportError:
            pass  # Slicer 5.6 and 5.10 install without asking
        else:
            pip_ensure(missing, constraints=constraints, requester=requester)
            return True
        if not slicer.util.confirmOkCancelDisplay(
            _("{count} Python packages need to be installed.").format(count=len(missing)),
            _("{requester} - Install Python Packages").format(requester=requester),
            detailedText="\n".join(map(str, missing)),
        ):
            return False
        slicer.util.pip_install([*map(str, missing), "-c", str(constraints)])
        return True


@contextmanager
def _constraints_file(pins: list[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="packages-") as folder:
        file = Path(folder) / "constraints.txt"
        file.write_text("\n".join(pins), encoding="utf-8")
        yield file


@contextmanager
def _wheels_only() -> Iterator[None]:
    """Have pip build nothing from source: a compiler is not there on most computers."""
    before = os.environ.get("PIP_ONLY_BINARY")
    os.environ["PIP_ONLY_BINARY"] = ":all:"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PIP_ONLY_BINARY"]
        else:
            os.environ["PIP_ONLY_BINARY"] = before
