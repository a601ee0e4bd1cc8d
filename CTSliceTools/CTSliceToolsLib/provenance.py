"""Which software made a result."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def software_versions(packages: Iterable[str]) -> dict[str, str]:
    """Give the versions of installed packages, of Python and of the system.

    An extension inside Slicer is no installed package: it is left out there.
    """
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "platform": platform.platform()}
