"""The software versions behind a result."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from CTLungScreeningLib import __version__


def software_versions(packages: Iterable[str]) -> dict[str, str]:
    """Give the versions of CTLungScreening, of installed packages, of Python and of the system.

    A package that is built into Slicer may have no version that Python knows: it is left out.
    """
    found = {"CTLungScreening": __version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "platform": platform.platform()}
