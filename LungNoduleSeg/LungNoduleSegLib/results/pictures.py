"""Pictures of lungs and nodules in true proportion, with outlines.

Radiological convention: the patient's right is on the left of each picture. Lines are kept as
coordinates, which the report draws as vectors.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from CTLungScreeningLib.errors import counted
from CTLungScreeningLib.hu import AIR_HU, LUNG_WINDOW
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.finding import NoduleFindings
from LungNoduleSegLib.nodules.measures import AxialDiameters, Points, axial_diameters, outlines

COLOURS = {
    "right": "#4fb3ff",
    "left": "#ffc14d",
    "nodule": "#ff5c7a",
    "diameter": "#12b76a",
    "box": "#ff5c7a",
}
"""Colours of the lines: right and left lung, nodule, its diameters, the enlarged area."""

CONTEXT_PIXELS = 400
"""Width of a picture of the whole chest; enlarged areas keep the scan's pixels."""

SQUARE_PIXELS = 240
"""Width of a square around a point, interpolated to the same scale for all scans."""

LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Levels of the axial pictures between top (0) and base (1) of the lungs."""


@dataclass(frozen=True)
class Line:
    """A line over a picture: points (n, 2), x and y in mm."""

    kind: str
    points: Points

    @property
    def path(self) -> str:
        """SVG path data."""
        return "M" + "L".join(f"{x:.2f},{y:.2f}" for x, y in self.points)


@dataclass(frozen=True)
class Label:
    """A text on a picture, centred on x, y in mm."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Picture:
    """Grey pixels that cover a rectangle in mm, with an overlay.

    Attributes:
        pixels: uint8 (rows, columns).
        left: mm, as are `top`, `width` and `height`; y grows downwards.
        lines: in drawing order.
        labels: numbers of nodules.
        sides: whether R and L are written at the edges.
        description: text alternative.
    """

    pixels: NDArray[np.uint8]
    left: float
    top: float
    width: float
    height: float
    lines: tuple[Line, ...]
    description: str
    labels: tuple[Label, ...] = ()
    sides: bool = True

    @property
    def uri(self) -> str:
        """The pixels as a PNG data URI."""
        stream = io.BytesIO()
        Image.fromarray(self.pixels).save(stream, "PNG", compress_level=3)
        return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


class PictureMaker:
    """Makes the pictures of one scan.

    Args:
        hu: axial HU image, cropped to the chest.
        lungs: `RIGHT_LUNG`, `LEFT_LUNG`, on the same grid.
        findings: nodules on the same grid.
    """

    def __init__(self, hu: sitk.Image, lungs: sitk.Image, findings: NoduleFindings) -> None:
        self._hu = sitk.GetArrayViewFromImage(hu)
        self._lungs = sitk.GetArrayViewFromImage(lungs)
        self._labels = sitk.GetArrayViewFromImage(findings.labels)
        self._spacing = np.array(hu.GetSpacing())
        self._grid = hu
        self._findings = findings
        self._boxes = ndimage.find_objects(self._labels)

    def levels(self) -> list[tuple[int, Picture]]:
        """Axial slices from the top of the lungs to their base, each with its index k."""
        held = np.flatnonzero(self._lungs.any(axis=(1, 2)))
        indices = [int(k) for k in np.quantile(held, 1 - np.array(LEVELS)).round()]
        return [
            (k, self._axial(k, self._lung_lines(k), "Axial slice with the outlines of both lungs"))
            for k in dict.fromkeys(indices)
        ]

    def frontal(self) -> Picture:
        """Anterior-posterior mean projection with lungs and nodules."""
        rays = np.clip(self._hu, -1000, 400).mean(axis=1, dtype=np.float32)[::-1]
        low, high = np.percentile(rays, (1, 99))
        pixels = np.clip((rays - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
        x_mm, _, z_mm = self._spacing
        lines = []
        for kind, value in (("right", RIGHT_LUNG), ("left", LEFT_LUNG)):
            shadow = (self._lungs == value).any(axis=1)[::-1]
            lines += _lines(kind, _thinned(outlines(shadow)), np.array([x_mm, z_mm]))
        labels = []
        for nodule in self._findings.nodules:
            i, _, k = self._grid.TransformPhysicalPointToContinuousIndex(
                (nodule.x, nodule.y, nodule.z)
            )
            centre = np.array([i * x_mm, (len(rays) - 1 - k) * z_mm])
            turn = np.linspace(0, 2 * np.pi, 33)[:, None]
            ring = np.hstack([np.cos(turn), np.sin(turn)]) * max(nodule.diameter_mm / 2 + 2, 4)
            lines.append(Line("nodule", centre + ring))
            labels.append(Label(str(nodule.id), centre[0] + ring[0, 0] + 5, centre[1]))
        n = len(labels)
        found = f"{counted(n, 'nodule')} marked" if n else "no nodule"
        return _picture(
            pixels,
            np.array([x_mm, z_mm]),
            (0, pixels.shape[1], 0, pixels.shape[0]),
            lines,
            f"Frontal view of the chest with the outlines of both lungs, {found}",
            tuple(labels),
        )

    def diameters(self, nodule_id: int) -> AxialDiameters:
        """Diameters of a nodule and the slice on which they were measured."""
        box = self._boxes[nodule_id - 1]
        return axial_diameters(self._labels[box] == nodule_id, box, self._spacing[::-1])

    def context(self, measured: AxialDiameters, description: str) -> Picture:
        """The whole slice with a box around the nodule."""
        left, right, top, bottom = self._around(measured)
        corners = np.array(
            [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], float
        )
        box = Line("box", (corners - 0.5) * self._spacing[:2])
        return self._axial(measured.slice, [box], description)

    def enlarged(self, measured: AxialDiameters, description: str) -> Picture:
        """The nodule's surroundings with its outline and diameters."""
        pixel = self._spacing[:2]
        lines = _lines("nodule", measured.outlines, pixel)
        lines += _lines("diameter", (measured.longest, measured.across), pixel)
        plane = LUNG_WINDOW.to_uint8(self._hu[measured.slice])
        return _picture(
            plane, pixel, self._around(measured), lines, description, sides=False, shrink=False
        )

    def square(
        self,
        point: tuple[float, float, float],
        half_mm: float,
        description: str,
        nodule_id: int | None = None,
    ) -> Picture:
        """A square around a point, at the same scale on any grid; black outside the scan.

        Args:
            point: LPS mm.
            half_mm: half the side of the square.
            description: text alternative.
            nodule_id: a nodule to show on its slice, with its outline and diameters.
        """
        pixel = self._spacing[:2]
        lines: list[Line] = []
        i, j, k = self._grid.TransformPhysicalPointToContinuousIndex(point)
        centre, level = np.array([i, j]), int(np.clip(round(k), 0, len(self._hu) - 1))
        if nodule_id is not None:
            measured = self.diameters(nodule_id)
            centre, level = measured.longest.mean(axis=0), measured.slice
            lines = _lines("nodule", measured.outlines, pixel)
            lines += _lines("diameter", (measured.longest, measured.across), pixel)
        offsets = ((np.arange(SQUARE_PIXELS) + 0.5) / SQUARE_PIXELS - 0.5) * 2 * half_mm
        x, y = (centre[axis] + offsets / pixel[axis] for axis in (0, 1))
        plane = ndimage.map_coordinates(
            self._hu[level].astype(np.float32),
            np.meshgrid(y, x, indexing="ij"),
            order=1,
            cval=AIR_HU,
        )
        left, top = centre * pixel - half_mm
        return Picture(
            LUNG_WINDOW.to_uint8(plane),
            left=float(left),
            top=float(top),
            width=2 * half_mm,
            height=2 * half_mm,
            lines=tuple(lines),
            description=description,
            sides=False,
        )

    def _around(self, measured: AxialDiameters) -> tuple[int, int, int, int]:
        """Square of pixels around a nodule: left, right, top, bottom."""
        half = np.maximum(18.0, 1.1 * measured.longest_mm) / self._spacing[:2]
        centre = measured.longest.mean(axis=0)
        last = np.array(self._hu.shape[:0:-1])
        low = np.clip(np.floor(centre - half), 0, last).astype(int)
        high = np.clip(np.ceil(centre + half) + 1, 0, last).astype(int)
        return int(low[0]), int(high[0]), int(low[1]), int(high[1])

    def _axial(self, k: int, lines: list[Line], description: str) -> Picture:
        plane = LUNG_WINDOW.to_uint8(self._hu[k])
        whole = (0, plane.shape[1], 0, plane.shape[0])
        return _picture(plane, self._spacing[:2], whole, lines, description)

    def _lung_lines(self, k: int) -> list[Line]:
        pixel = self._spacing[:2]
        return [
            line
            for kind, value in (("right", RIGHT_LUNG), ("left", LEFT_LUNG))
            for line in _lines(kind, _thinned(outlines(self._lungs[k] == value)), pixel)
        ]


def _lines(kind: str, lines: Sequence[Points], pixel: Points) -> list[Line]:
    return [Line(kind, line * pixel) for line in lines]


def _thinned(lines: Sequence[Points]) -> list[Points]:
    """Keep every third point and the ends, enough for a smooth outline."""
    return [line[np.append(np.arange(0, len(line) - 1, 3), -1)] for line in lines]


def _picture(
    plane: NDArray[np.uint8],
    pixel: Points,
    box: tuple[int, int, int, int],
    lines: list[Line],
    description: str,
    labels: tuple[Label, ...] = (),
    sides: bool = True,
    shrink: bool = True,
) -> Picture:
    """Cut `box` (left, right, top, bottom) out of a plane with its first pixel at 0 mm."""
    left, right, top, bottom = box
    pixels = plane[top:bottom, left:right]
    if shrink and pixels.shape[1] > CONTEXT_PIXELS:
        height = round(pixels.shape[0] * CONTEXT_PIXELS / pixels.shape[1])
        resized = Image.fromarray(pixels).resize((CONTEXT_PIXELS, height), Image.Resampling.BOX)
        pixels = np.asarray(resized)
    corner = (np.array([left, top]) - 0.5) * pixel
    size = np.array([right - left, bottom - top]) * pixel
    return Picture(
        pixels,
        left=float(corner[0]),
        top=float(corner[1]),
        width=float(size[0]),
        height=float(size[1]),
        lines=tuple(lines),
        description=description,
        labels=labels,
        sides=sides,
    )
