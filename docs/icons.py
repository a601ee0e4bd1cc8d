"""Draw the icons anew from their SVG sources, as PNG of 128×128.

.venv/bin/python docs/icons.py
"""

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer

SIZE = 128
ROOT = Path(__file__).parents[1]


def draw(source: Path) -> None:
    """Draw one SVG file beside itself."""
    image = QImage(SIZE, SIZE, QImage.Format.Format_ARGB32)
    image.fill(0)
    painter = QPainter(image)
    QSvgRenderer(str(source)).render(painter)
    painter.end()
    if not image.save(str(source.with_suffix(".png"))):
        raise OSError(f"{source.with_suffix('.png')} could not be written")


if __name__ == "__main__":
    application = QGuiApplication([])
    for file in [*ROOT.glob("docs/icons/*.svg"), *ROOT.glob("*/Resources/Icons/*.svg")]:
        draw(file)
