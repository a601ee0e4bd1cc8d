"""The button Reload of Slicer's developer mode, for modules whose code lies in packages."""

import sys

PACKAGES = frozenset(
    f"{name}{layer}"
    for name in ("CTLungScreening", "CTSliceTools", "LungNoduleSeg")
    for layer in ("Lib", "Slicer")
)


def forget_packages() -> None:
    """Have the files of our packages read again when they are next imported.

    Slicer's own reload reads the module's file alone again; call this before it.
    """
    for name in list(sys.modules):
        if name.partition(".")[0] in PACKAGES:
            del sys.modules[name]
