"""Lazy public names of a package, and software versions."""

import importlib
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from CTLungScreeningLib import __version__
from CTLungScreeningLib.errors import missing_packages_named


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package (PEP 562) that imports its public names on first use.

    Args:
        package: its name.
        homes: `module` or `module:other_name` within the package, by public name; a module with a
            capital initial is in another package.
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
    """Return the versions of CTLungScreening, of packages, of Python and of the system.

    Packages without a version, such as those built into Slicer, are left out.
    """
    found = {"CTLungScreening": __version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "platform": platform.platform()}
