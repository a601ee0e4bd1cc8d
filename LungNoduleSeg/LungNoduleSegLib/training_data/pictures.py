"""Pages for checking that images and masks of a store match."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.hu import LUNG_WINDOW
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.training_data.store import Example, read_store

COLUMNS = (
    "Slice, cropped to the lungs",
    "Nodule mask",
    "Masked slice",
    "Close-up",
    "As the network sees it",
)
ROWS = 5
"""Examples on a page."""

TILE, GAP, CAPTION = 320, 8, 22
CLOSE_UP_MM = 60.0
OUTLINE = "#ff5c7a"
_WHOLE_DEVIATIONS = 3.0
"""Upper end of the displayed range in standard deviations; the lower end is outside the lungs."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Box = tuple[Floats, Floats]
"""Lower and upper corner (x, y) in pixels; the first pixel begins at 0."""


def draw_pages(store: Path, output: Path, progress: ProgressCallback = silent) -> list[Path]:
    """Draw each example of a store: slice, mask, masked slice, close-up and prepared slice.

    Args:
        store: made by `prepare_luna` or `prepare_lidc`.
        output: folder for `page-001.png` and so on, made if missing.
        progress: callback, in the stage "Pages".

    Returns:
        The pages.

    Raises:
        InputError: if a page exists, or the store cannot be used or has no examples.
    """
    examples = [Example(scan, n) for scan in read_store(store) for n in range(len(scan.slices))]
    if not examples:
        raise InputError(f"{store} has no examples: prepare scans with nodules.")
    starts = range(0, len(examples), ROWS)
    pages = [output / f"page-{n:03}.png" for n in range(1, len(starts) + 1)]
    refuse_existing(output, [page.name for page in pages])
    with whole_output(output) as folder:
        volumes = _Volumes()
        for done, (page, start) in enumerate(zip(pages, starts, strict=True)):
            progress("Pages", done, len(pages))
            rows = [_row(example, volumes) for example in examples[start : start + ROWS]]
            height = CAPTION + len(rows) * (rows[0].height + GAP)
            sheet = Image.new("RGB", (rows[0].width, height), "white")
            draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
            for n, words in enumerate(COLUMNS):
                draw.text((n * (TILE + GAP) + TILE // 2, CAPTION // 2), words, "black", font, "mm")
            for n, row in enumerate(rows):
                sheet.paste(row, (0, CAPTION + n * (row.height + GAP)))
            with new_file(folder / page.name) as temporary:
                sheet.save(temporary, "PNG", optimize=True)
    progress("Pages", len(pages), len(pages))
    return pages


@dataclass
class _Volumes:
    """Cache of HU and displayed nodules of the last scan; examples are ordered by scan."""

    folder: Path | None = None
    hu: sitk.Image | None = None
    labels: NDArray[np.uint16] | None = None

    def of(self, example: Example) -> tuple[sitk.Image, NDArray[np.uint16]]:
        scan = example.scan
        if self.folder != scan.folder:
            labels = sitk.GetArrayFromImage(scan.volume("nodules"))
            chosen = [nodule.number for nodule in scan.nodules if nodule.example]
            self.folder, self.hu = scan.folder, scan.volume("hu")
            self.labels = np.where(np.isin(labels, chosen), labels, 0)
        assert self.hu is not None and self.labels is not None
        return self.hu, self.labels


def _row(example: Example, volumes: _Volumes) -> Image.Image:
    scan, k = example.scan, example.scan.slices[example.row]
    hu, labels = volumes.of(example)
    spacing = np.array(hu.GetSpacing()[:2])
    plane = LUNG_WINDOW.to_uint8(sitk.GetArrayViewFromImage(hu)[k])
    mask = labels[k] > 0
    image, covered = scan.images()[example.row, 0], scan.masks()[example.row, 0]
    low = float(image.min())
    seen = np.clip((image - low) / (_WHOLE_DEVIATIONS - low), 0, 1) * 255
    whole = _square(np.array(plane.shape[::-1]) / 2, max(plane.shape[::-1] * spacing), spacing)
    tiles = [
        _tile(plane, whole),
        _tile(mask.astype(np.uint8) * 255, whole),
        _tile(np.where(mask, plane, 0).astype(np.uint8), whole),
        _tile(plane, _close_up(mask, spacing), mask),
        _tile(seen.astype(np.uint8), (np.zeros(2), np.array(seen.shape, float)), covered > 0.5),
    ]
    z = hu.TransformIndexToPhysicalPoint((0, 0, k))[2]
    here = [f"{n.diameter_mm:.1f} mm" for n in scan.nodules if n.number in labels[k]]
    nodules = f"nodule of {' and '.join(here)}" if here else "no nodule"
    words = textwrap.shorten(f"{scan.name}, slice {k}, z {z:.1f} mm, {nodules}", 160)
    row = Image.new("RGB", (len(tiles) * (TILE + GAP) - GAP, TILE + CAPTION), "white")
    for n, tile in enumerate(tiles):
        row.paste(tile, (n * (TILE + GAP), CAPTION))
    draw = ImageDraw.Draw(row)
    draw.text((2, CAPTION // 2), words, "black", ImageFont.load_default(size=15), "lm")
    return row


def _close_up(mask: NDArray[np.bool_], spacing: Floats) -> Box:
    """A square around the mask, or around the centre if it is empty."""
    pixels = np.argwhere(mask)[:, ::-1]
    if not len(pixels):
        return _square(np.array(mask.shape[::-1]) / 2, CLOSE_UP_MM, spacing)
    extent = np.ptp(pixels, axis=0).max() * spacing.max()
    return _square(pixels.mean(axis=0) + 0.5, max(CLOSE_UP_MM, 1.5 * extent), spacing)


def _square(middle: Floats, side_mm: float, spacing: Floats) -> Box:
    half = side_mm / 2 / spacing
    return middle - half, middle + half


def _tile(plane: Pixels, box: Box, outlined: NDArray[np.bool_] | None = None) -> Image.Image:
    """Draw the part of a plane within a box, black outside the plane."""
    low, high = box
    step = (high - low) / TILE
    tile = (
        Image.fromarray(plane)
        .transform(
            (TILE, TILE),
            Image.Transform.AFFINE,
            (step[0], 0, low[0], 0, step[1], low[1]),
            Image.Resampling.BILINEAR,
        )
        .convert("RGB")
    )
    if outlined is not None:
        draw = ImageDraw.Draw(tile)
        for line in find_contours(np.pad(outlined, 1).astype(np.float32), 0.5):
            points = (line[:, ::-1] - 0.5 - low) / step
            draw.line([tuple(point) for point in points], fill=OUTLINE, width=2)
    return tile
