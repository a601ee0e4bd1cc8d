"""Shared by both modules: reading CT, geometry, files, progress, model cards; needs no Slicer."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__version__ = "0.1.0"


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
        from CTLungScreeningLib.errors import missing_packages_named  # noqa: PLC0415 - first import

        module, _, original = homes[name].partition(":")
        full = module if module[0].isupper() else f"{package}.{module}"
        with missing_packages_named():
            return getattr(importlib.import_module(full), original or name)

    return get


def software_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of CTLungScreening, of packages, of Python and of the system.

    Packages without a version, such as those built into Slicer, are left out.
    """
    import platform  # noqa: PLC0415 - not needed by every import of the package
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    found = {"CTLungScreening": __version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "platform": platform.platform()}
