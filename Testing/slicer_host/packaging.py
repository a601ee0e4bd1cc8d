"""Stand-in for `slicer.packaging` of 5.12: asks pip itself, but never changes this environment.

What is missing is looked up for real; where Slicer would run `pip install`, pip is run with
`--dry-run`.
"""

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import Requirement


def load_requirements(path: str | Path) -> list[Requirement]:
    """Read a requirements.txt without its comments and options."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pip_check(requirements: Any) -> bool:
    """Tell whether requirements are met."""
    return not _missing(requirements)


def _missing(requirements: Any) -> list[Requirement]:
    missing = []
    for one in requirements if isinstance(requirements, list) else [requirements]:
        requirement = Requirement(str(one))
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            met = importlib.metadata.version(requirement.name) in requirement.specifier
        except importlib.metadata.PackageNotFoundError:
            met = False
        if not met:
            missing.append(requirement)
    return missing


def pip_ensure(
    requirements: Any,
    constraints: str | Path | None = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> None:
    """Install what is missing after asking.

    Raises:
        RuntimeError: if the user declines.
        subprocess.CalledProcessError: if pip fails.
    """
    missing = _missing(requirements)
    if not missing or (skip_in_testing and slicer.app.testingEnabled()):
        return
    if prompt_install and not slicer.util.confirmOkCancelDisplay(
        f"{len(missing)} Python packages need to be installed.",
        f"{requester} - Install Python Packages",
        detailedText="\n".join(map(str, missing)),
    ):
        raise RuntimeError("User declined package installation")
    pip_install([str(one) for one in missing], constraints)


def pip_install(requirements: str | list[str], constraints: str | Path | None = None) -> None:
    """Run pip as Slicer does, but dry.

    Raises:
        subprocess.CalledProcessError: if pip fails.
    """
    arguments = requirements.split() if isinstance(requirements, str) else requirements
    limits = [] if constraints is None else ["-c", str(constraints)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", *arguments, *limits],
        check=True,
        capture_output=True,
    )
