"""Install the Python packages a run needs, on first use and after asking.

None that is installed is replaced, unless it is too old.
"""

import importlib.metadata
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import module_command
from CTLungScreeningLib.errors import Cancelled
from CTLungScreeningSlicer.panel.run_bar import ProgressWindow, duration_text

try:
    from packaging.requirements import Requirement
except ImportError:  # Slicer 5.6
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]

MB_PER_S = 2.5
"""Speed of installation by disk space, on a slow connection."""

POLL_MS = 100
"""Interval at which events of the window are processed."""

_STEPS = r"^(?:Collecting|Downloading|Using cached|Installing) .*"
"""Lines of pip that are shown."""

_LABEL_LENGTH = 60


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
    """Return the requirements of this computer that are not met."""
    importlib.invalidate_caches()
    return [
        one
        for one in read_requirements(file)
        if (one.marker is None or one.marker.evaluate()) and not _is_met(one)
    ]


_SAME = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    "xgboost-cpu": ("xgboost",),
}
"""Other names of a package, for other processors: all of them bring the same module."""


def _installed_version(requirement: Requirement) -> str | None:
    """Return the version of a package that is there, under any of its names."""
    for name in (requirement.name, *_SAME.get(requirement.name, ())):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _is_met(requirement: Requirement) -> bool:
    version = _installed_version(requirement)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def installed_constraints(missing: list[Requirement]) -> list[str]:
    """Pin each package that is installed, so that pip leaves those of Slicer and of others alone.

    Packages that are `missing` in a newer version are not pinned.
    """
    free = {_plain(one.name) for one in missing}
    names = {_plain(name) for one in importlib.metadata.distributions() if (name := one.name)}
    pins = []
    for name in sorted(names - free):
        with suppress(importlib.metadata.PackageNotFoundError):  # ~umpy, which pip left behind
            version = importlib.metadata.version(name)
            if "+" not in version:
                pins.append(f"{name}=={version}")
    return pins


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def size_mb(file: Path) -> int | None:
    """Return the disk space of the packages of a requirements file, as the file states."""
    stated = re.search(r"^# About (\d+) MB", file.read_text(encoding="utf-8"), re.MULTILINE)
    return int(stated[1]) if stated else None


def ensure_packages(file: Path, requester: str) -> bool:
    """Check that the packages of a requirements file are there; install them if the user agrees.

    A window shows the progress, and keeps the user from starting anything else. What is installed
    already stays at its version, unless it is too old: the question names it. If pip fails, one
    message names the command that can be run by hand. pip runs in a process of its own, in every
    version of Slicer.

    Args:
        file: the module's requirements.txt.
        requester: title of the module, for the question.

    Returns:
        Whether all of them are there now; not while another installation is under way, nor while
        Slicer holds a version that was replaced.
    """
    missing = missing_requirements(file)
    output = ""
    if missing and may_install():
        if _under_way or not slicer.util.confirmOkCancelDisplay(
            _question(missing, size_mb(file)),
            _("{requester}: install Python packages").format(requester=requester),
            detailedText="\n".join(map(str, missing)),
        ):
            return False
        old = [one for one in missing if _installed_version(one)]
        printed = _install(missing)
        importlib.invalidate_caches()
        _replaced.update(one.name for one in old if _is_met(one))
        if printed is None:
            return False
        output = printed
        missing = missing_requirements(file)
    if missing:
        details = {"detailedText": output} if output else {}
        slicer.util.errorDisplay(failure_message(missing, output), **details)
        return False
    stale = ", ".join(one.name for one in read_requirements(file) if one.name in _replaced)
    if stale:
        slicer.util.warningDisplay(
            _("Restart Slicer to use the new {packages}: it still holds the old one.").format(
                packages=stale
            )
        )
    return not stale


_replaced: set[str] = set()
"""Packages installed anew, of which Slicer may have loaded the old version."""


def may_install() -> bool:
    """Whether packages may be installed: Slicer's own tests leave its Python as it is."""
    return not slicer.app.testingEnabled()


def _question(missing: list[Requirement], size: int | None) -> str:
    replaced = ", ".join(
        f"{one.name} {version} → {one.specifier}".replace(">=", "≥")
        for one in missing
        if (version := _installed_version(one))
    )
    text = (
        _("This needs 1 Python package that is {lacking}.")
        if len(missing) == 1
        else _("This needs {count} Python packages that are {lacking}.")
    ).format(
        count=len(missing),
        lacking=_("missing or too old") if replaced else _("not installed yet"),
    )
    if size is not None:
        text += " " + _("They take up to {size} MB on the disk, and about {time}.").format(
            size=size, time=duration_text(size / MB_PER_S)
        )
    change = (
        _("Newer versions replace what other extensions may need: {replaced}.")
        if replaced
        else _("Nothing that is installed is changed.")
    ).format(replaced=replaced)
    return text + "\n\n" + change + " " + _("Install them now?")


def failure_message(missing: list[Requirement], output: str = "") -> str:
    """Report that packages could not be installed, why, and the command that installs them.

    Args:
        missing: the packages.
        output: what pip has printed.
    """
    remedies = {
        "Permission denied|Access is denied|Read-only": _("install Slicer where you may write"),
        "No space left|not enough space": _("free space on the disk"),
        "ResolutionImpossible": _(
            "update the extensions whose packages do not go with these, see the details"
        ),
    }
    found = (remedy for cause, remedy in remedies.items() if re.search(cause, output))
    names = " ".join(f'"{one}"' for one in missing)
    return _(
        "Python packages could not be installed: {remedy}, then try again, or run this command in "
        "a terminal, which may replace packages that other extensions need:\n\n"
        "PythonSlicer -m pip install {names}"
    ).format(remedy=next(found, _("check the internet connection of this computer")), names=names)


_under_way: list[qt.QProcess] = []
"""The installation that is under way."""


def _install(missing: list[Requirement]) -> str | None:
    """Run pip to its end and give what it has printed; None if the user has cancelled it."""
    process, output = qt.QProcess(), ""
    process.setProcessChannelMode(qt.QProcess.MergedChannels)
    _under_way.append(process)
    try:
        title = _("Installing Python packages")
        with (
            _constraints_file(installed_constraints(missing)) as constraints,
            ProgressWindow(title, _("Looking for the packages")) as window,
        ):
            # Wheels only: most computers have no compiler.
            options = ("--only-binary", ":all:", "-c", constraints, "--progress-bar", "off")
            command = module_command("pip", "install", *options, *map(str, missing))
            process.start(command[0], command[1:])
            while process.state() != qt.QProcess.NotRunning:
                process.waitForReadyRead(POLL_MS)
                new = bytes(process.readAll().data()).decode(errors="replace")
                output += new
                for step in re.findall(_STEPS, new, re.MULTILINE)[-1:]:
                    window.show(step.strip()[:_LABEL_LENGTH])
                window.keep_alive()
            return output + bytes(process.readAll().data()).decode(errors="replace")
    except Cancelled:
        process.kill()
        process.waitForFinished()
        return None
    finally:
        _under_way.clear()


@contextmanager
def _constraints_file(pins: list[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="packages-") as folder:
        file = Path(folder) / "constraints.txt"
        file.write_text("\n".join(pins), encoding="utf-8")
        yield file
