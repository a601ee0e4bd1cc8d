"""Tables of a panel that are as high as what they hold."""

from typing import Any


def fit_height(table: Any, least: int, most: int) -> None:
    """Make a table as high as its rows; with more than `most` of them it scrolls.

    Args:
        table: a table widget.
        least: rows of the default height that it has room for even if it is empty.
        most: rows that are seen at once.
    """
    shown = min(table.rowCount, most)
    height = table.horizontalHeader().sizeHint.height() + 2 * table.frameWidth
    height += sum(table.rowHeight(row) for row in range(shown))
    height += max(0, least - shown) * table.verticalHeader().defaultSectionSize
    table.minimumHeight = table.maximumHeight = height
