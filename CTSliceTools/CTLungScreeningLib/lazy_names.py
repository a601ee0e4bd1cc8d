"""Names of a package that are imported when they are first used."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

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
