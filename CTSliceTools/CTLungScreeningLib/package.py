"""Names of a package that load on first use, and the versions behind a result."""

import importlib
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from CTLungScreeningLib import __version__
from CTLungScreeningLib.errors import missing_packages_named


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Give the `__getattr__` of a package (PEP 562) that imports its public names on first use.

    Args:
        package: its name.
        homes: `module` or `module:other_name` within the package, by public name; a module that
            begins with a capital letter is of another package.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, original = homes[name].partition(":")
        full = module if module[0].isupper() else f"{package}.{module}"
        with missing_packages_named():
            return getattr(importlib.import_module(full), original or name)

    return get


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
