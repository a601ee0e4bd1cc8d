"""The lung window of a volume in the scene."""

from typing import Any

from CTLungScreeningLib.hu import LUNG_WINDOW


def show_in_lung_window(volume_node: Any) -> None:
    """Have a volume shown in the lung window, wherever it is."""
    if volume_node.GetDisplayNode() is None:
        volume_node.CreateDefaultDisplayNodes()
    display = volume_node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(LUNG_WINDOW.width, LUNG_WINDOW.level)
