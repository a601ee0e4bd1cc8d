"""Labels of a panel that take no room while they are empty."""

from typing import Any


def show_text(label: Any, text: str) -> None:
    """Show a text in a label, and hide the label if there is none."""
    label.text = text
    label.visible = bool(text)
