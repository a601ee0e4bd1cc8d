"""Pictures of how good a detector is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from CTLungScreeningLib.colours import BLUE
from CTLungScreeningLib.errors import counted
from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.hu import AIR_HU, LUNG_WINDOW
from LungNoduleSegLib.evaluation.detection import DetectionScore
from LungNoduleSegLib.evaluation.froc import CONFIDENCE, GRID, OPERATING_POINTS
from LungNoduleSegLib.evaluation.lesion_placement import SYNTHETIC, LesionType, PlacedLesion
from LungNoduleSegLib.evaluation.subgroups import BINS, Calibration, Size, limits
from LungNoduleSegLib.nodules.table import Place

SIDE_MM = 50.0
"""Side of the square around a lesion."""

TILE, GAP, TITLE = 160, 4, 120
"""Pixels of a square, between squares, and of the row titles."""

MOST_TILES = 8
"""Squares in a row of lesions."""

T = TypeVar("T")


def plot_froc(path: Path, score: DetectionScore) -> None:
    """Draw the FROC curve with its operating points and confidence band into a PNG file.

    Raises:
        InputError: if `path` exists.
    """
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    if score.band is not None:
        limits = score.band.curve
        axes.fill_between(
            GRID,
            limits.lower,
            limits.upper,
            color=BLUE,
            alpha=0.15,
            lw=0,
            label=f"{CONFIDENCE:.0%} of resamples of the scans",
        )
    axes.plot(GRID, score.curve.sensitivity_at(GRID), color=BLUE, label="all scans")
    axes.plot(OPERATING_POINTS, score.sensitivity, "o", color=BLUE, ms=5, clip_on=False)
    axes.set_xscale("log", base=2)
    axes.set_xticks(OPERATING_POINTS, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(
        title=f"FROC: CPM {score.cpm:.4f}, "
        f"{counted(int(score.matching.marks.nodules.sum()), 'nodule')} in "
        f"{counted(len(score.matching.marks.nodules), 'scan')}",
        xlabel="False positives per scan",
        ylabel="Sensitivity",
        xlim=(OPERATING_POINTS[0], OPERATING_POINTS[-1]),
        ylim=(0, 1),
    )
    axes.grid(color="0.9")
    axes.legend(frameon=False, loc="lower right")
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


@dataclass(frozen=True)
class SheetRow:
    """Lesions to show side by side: images with a position in each, LPS mm."""

    title: str
    places: Sequence[tuple[sitk.Image, tuple[float, float, float]]]


def plot_sensitivity(path: Path, counts: Mapping[str, Mapping[Size, tuple[int, int]]]) -> None:
    """Draw the numbers of found lesions by kind and size into a PNG file.

    Args:
        path: new PNG file.
        counts: by kind, at least one, then by size: how many were found, of how many; the same
            sizes for each.

    Raises:
        InputError: if `path` exists.
    """
    sizes = list(next(iter(counts.values())))
    cells = np.array([list(row.values()) for row in counts.values()], float)
    share = np.divide(cells[..., 0], cells[..., 1], where=cells[..., 1] > 0, out=cells[..., 0] * 0)
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    axes.set_xticks(
        range(len(sizes)), [one if isinstance(one, str) else f"{one[0]}–{one[1]}" for one in sizes]
    )
    axes.set_yticks(range(len(counts)), list(counts))
    axes.set(title="Inserted lesions found", xlabel="Diameter (mm)")
    for (row, column), part in np.ndenumerate(share):
        found, of = cells[row, column].astype(int)
        colour = "white" if part > 0.7 else "black"
        text = f"{found} of {of}" if of else "–"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def plot_calibration(path: Path, reliability: Calibration | None) -> None:
    """Draw the reliability curve, with the number of findings in each bin, into a PNG file.

    Args:
        path: new PNG file.
        reliability: None if it is not known, which the picture then says.

    Raises:
        InputError: if `path` exists.
    """
    figure = Figure(figsize=(5.6, 5.6), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], ":", color="grey", label="perfect")
    if reliability is None:
        axes.set_title("Calibration: no findings with a probability from 0 to 1")
    else:
        bins = reliability.bins
        x = [one.probability for one in bins]
        share = np.array([one.nodules / one.findings for one in bins])
        ends = np.array([limits(one.nodules, one.findings) for one in bins])
        axes.errorbar(
            x,
            share,
            np.abs(ends.T - share),
            fmt="o-",
            color=BLUE,
            capsize=3,
            label="findings, 95 % limits",
        )
        axes.set_title(
            f"Calibration of {counted(reliability.findings, 'finding')}: "
            f"expected error {reliability.error:.3f}"
        )
        middle = [(one.number + 0.5) / BINS for one in bins]
        bars = counts.bar(middle, [one.findings for one in bins], 0.9 / BINS, color=BLUE)
        counts.bar_label(bars, fontsize="small")
        counts.margins(y=0.25)
    axes.set(ylabel="Share that are nodules", xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.grid(color="0.9")
    axes.legend(frameon=False, loc="upper left")
    counts.set(xlabel="Probability of a finding", ylabel="Findings")
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def lesion_rows(image: sitk.Image, lesions: Sequence[PlacedLesion]) -> list[SheetRow]:
    """Rows of the lesions in an image, the smallest first: by type, or real ones by place."""
    ordered = sorted(lesions, key=lambda one: one.diameter_mm)
    rows: dict[str, list[tuple[sitk.Image, tuple[float, float, float]]]] = {
        title: [] for title in (*SYNTHETIC, *Place)
    }
    for one in ordered:
        title = one.place if one.type is LesionType.TRANSPLANTED else one.type
        rows[title].append((image, one.centre))
    return [SheetRow(title, _spread(places)) for title, places in rows.items() if places]


def _spread(places: Sequence[T]) -> list[T]:
    """Choose at most `MOST_TILES`, evenly."""
    chosen = np.linspace(0, len(places) - 1, min(len(places), MOST_TILES)).round().astype(int)
    return [places[n] for n in chosen]


def draw_sheet(path: Path, rows: Sequence[SheetRow]) -> None:
    """Draw axial squares around lesions, row by row, into a PNG file.

    Raises:
        InputError: if `path` exists.
    """
    columns = max(len(row.places) for row in rows)
    sheet = Image.new("L", (TITLE + columns * (TILE + GAP), len(rows) * (TILE + GAP) - GAP), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for y, row in zip(range(0, sheet.height, TILE + GAP), rows, strict=True):
        draw.text((8, y + TILE // 2), row.title, 0, font, "lm")
        for n, (image, place) in enumerate(row.places):
            sheet.paste(_square(image, place), (TITLE + n * (TILE + GAP), y))
    with new_file(path) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def _square(image: sitk.Image, place: tuple[float, float, float]) -> Image.Image:
    """Cut an axial square of `SIDE_MM` out of a volume, black outside it."""
    step = SIDE_MM / TILE
    corner = np.subtract(place, ((SIDE_MM - step) / 2, (SIDE_MM - step) / 2, 0))
    tile = sitk.Resample(
        image,
        (TILE, TILE, 1),
        sitk.Transform(),
        sitk.sitkLinear,
        corner.tolist(),
        (step, step, 1.0),
        np.eye(3).ravel().tolist(),
        float(AIR_HU),
    )
    return Image.fromarray(LUNG_WINDOW.to_uint8(sitk.GetArrayViewFromImage(tile)[0]))
