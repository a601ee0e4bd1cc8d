"""The nodule table: its columns, and the CSV file."""

import csv
import math
from collections.abc import Iterable
from dataclasses import MISSING, astuple, dataclass, fields, replace
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lungs.labels import Lobe

MOST_NODULES = 1 << 16
"""Ids are below this: labels are stored in 16 bits."""


MAX_MM, MAX_MM3 = 1000.0, 1e9
"""No length and no volume of a nodule is larger."""


class NoduleKind(StrEnum):
    """Type by attenuation."""

    SOLID = "solid"
    PART_SOLID = "part-solid"
    NON_SOLID = "non-solid"
    CALCIFIED = "calcified"

    @classmethod
    def of_texture(cls, text: str) -> "NoduleKind":
        """Read one of these words, or LIDC-IDRI's rating of texture: 1 ground glass … 5 solid.

        Raises:
            ValueError: if it is neither.
        """
        word = text.strip().lower()
        if word in tuple(cls):
            return cls(word)
        rating = float(word)
        if not 1 <= rating <= 5:
            raise ValueError(text)
        return (cls.NON_SOLID, cls.PART_SOLID, cls.SOLID)[(rating > 1) + (rating == 5)]


class Place(StrEnum):
    """Position of a nodule in the lung."""

    FREE = "free"
    PLEURA = "pleura"
    VESSEL = "vessel"


class Side(StrEnum):
    """The lung that holds the nodule; the patient's right and left."""

    RIGHT = "right"
    LEFT = "left"


class Verdict(StrEnum):
    """A reader's verdict on a finding."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNCERTAIN = "uncertain"


class Outline(StrEnum):
    """The origin of a nodule's outline."""

    IMAGE = "image"
    NETWORK = "network"
    HAND = "hand"


class Plane(StrEnum):
    """The plane in which a nodule is measured."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


@dataclass(frozen=True)
class Nodule:
    """One nodule; `COLUMNS` describes each field and its unit."""

    id: int
    x: float
    y: float
    z: float
    slice: int
    diameter_mm: float
    perpendicular_mm: float
    equivalent_diameter_mm: float
    volume_mm3: float
    mean_hu: float
    std_hu: float
    min_hu: float
    p10_hu: float
    median_hu: float
    p90_hu: float
    max_hu: float
    kind: NoduleKind
    solid_mm: float | None
    side: Side
    pleura_mm: float
    probability: float | None
    mean_probability: float | None
    mean_diameter_mm: float | None = None
    outline: Outline | None = None
    diameter_pm_mm: float | None = None
    perpendicular_pm_mm: float | None = None
    mean_diameter_pm_mm: float | None = None
    volume_pm_mm3: float | None = None
    solid_pm_mm: float | None = None
    lobe: Lobe | None = None
    largest_plane: Plane | None = None
    largest_plane_mm: float | None = None
    cavity_mm3: float | None = None

    @property
    def place(self) -> str:
        """The lobe in words, or the lung if the lobe is unknown."""
        return f"{self.side} lung" if self.lobe is None else f"{self.lobe} lobe"


def mean_axial_mm(longest_mm: float, across_mm: float) -> float:
    """Mean of two axial diameters (mm) as in Lung-RADS v2022: all rounded to 0.1 mm."""
    longest, across = (rounded(value, "0.1") for value in (longest_mm, across_mm))
    return float(rounded((longest + across) / 2, "0.1"))


def sphere_diameter(volume_mm3: Any) -> Any:
    """Diameter (mm) of the sphere of a volume (mm³), of any shape."""
    return np.cbrt(6 * volume_mm3 / np.pi)


def rounded(value: float | Decimal, step: str) -> Decimal:
    """Round half up to a step such as "0.1", ignoring errors of floating point."""
    return Decimal(str(round(value, 6))).quantize(Decimal(step), ROUND_HALF_UP)


@dataclass(frozen=True)
class Column:
    """Title, unit and description of one column."""

    title: str
    unit: str
    description: str

    @property
    def heading(self) -> str:
        """Title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


COLUMNS = {
    "id": Column("ID", "", "Number of the nodule and its value in the label image"),
    "x": Column("x", "mm", "Centre of its voxels, LPS: towards the patient's left"),
    "y": Column("y", "mm", "Centre of its voxels, LPS: towards the patient's back"),
    "z": Column("z", "mm", "Centre of its voxels, LPS: towards the patient's head"),
    "slice": Column("Slice", "", "Index k, from 0, of the centre on the input's grid"),
    "diameter_mm": Column("Diameter", "mm", "Longest diameter on any axial slice"),
    "perpendicular_mm": Column(
        "Perpendicular", "mm", "Longest diameter across the first, on the same slice"
    ),
    "equivalent_diameter_mm": Column(
        "Sphere diameter", "mm", "Diameter of the sphere of the same volume"
    ),
    "volume_mm3": Column(
        "Volume",
        "mm³",
        "Sum of its voxels; if the outline is from the image, edge voxels by their share, and less "
        "than the sum where blur swells a small nodule",
    ),
    "mean_hu": Column("Mean", "HU", "Mean attenuation of its voxels"),
    "std_hu": Column("Deviation", "HU", "Standard deviation of the attenuation of its voxels"),
    "min_hu": Column("Minimum", "HU", "Lowest attenuation of its voxels"),
    "p10_hu": Column("10 %", "HU", "10th percentile of the attenuation of its voxels"),
    "median_hu": Column("Median", "HU", "Median attenuation of its voxels"),
    "p90_hu": Column("90 %", "HU", "90th percentile of the attenuation of its voxels"),
    "max_hu": Column("Maximum", "HU", "Highest attenuation of its voxels"),
    "kind": Column(
        "Type", "", "solid, part-solid, non-solid (ground glass) or calcified, by attenuation"
    ),
    "solid_mm": Column(
        "Solid part",
        "mm",
        "Mean of the two axial diameters of the largest solid piece; empty unless part-solid",
    ),
    "side": Column("Lung", "", "The patient's right or left lung"),
    "pleura_mm": Column(
        "Distance to pleura",
        "mm",
        "Distance to the border of the lung, also the mediastinal one; 0: touching",
    ),
    "probability": Column(
        "Probability", "", "Highest output of the network; empty for a nodule drawn by hand"
    ),
    "mean_probability": Column(
        "Mean probability", "", "Mean output of the network; empty for a nodule drawn by hand"
    ),
    "mean_diameter_mm": Column(
        "Mean diameter",
        "mm",
        "Mean of diameter and perpendicular, each and the mean to 0.1 mm, as in Lung-RADS",
    ),
    "outline": Column(
        "Outline",
        "",
        "Origin of the outline: the image, or else the network, or a drawing by hand",
    ),
    "diameter_pm_mm": Column(
        "± diameter",
        "mm",
        "Half the 95 % interval of the diameter; empty unless by the image, and at the scan's end",
    ),
    "perpendicular_pm_mm": Column(
        "± perpendicular", "mm", "Half the 95 % interval of the perpendicular; as before"
    ),
    "mean_diameter_pm_mm": Column(
        "± mean diameter", "mm", "Half the 95 % interval of the mean diameter; as before"
    ),
    "volume_pm_mm3": Column("± volume", "mm³", "Half the 95 % interval of the volume; as before"),
    "solid_pm_mm": Column(
        "± solid part", "mm", "Half the 95 % interval of the solid part; as before"
    ),
    "lobe": Column(
        "Lobe", "", "The lobe with most of its voxels; empty unless the lungs came with lobes"
    ),
    "largest_plane": Column(
        "Largest plane",
        "",
        "Plane in which the mean of both diameters is largest: axial, or where slices are no more "
        "than 1.5 mm apart also coronal or sagittal",
    ),
    "largest_plane_mm": Column(
        "Mean diameter, largest plane",
        "mm",
        "Mean of both diameters in that plane, to 0.1 mm; Lung-RADS v2022 allows any plane",
    ),
    "cavity_mm3": Column(
        "Cavity",
        "mm³",
        "Air within it that a thick wall shuts in, part of its volume; empty if there is none",
    ),
}
"""Every field of `Nodule`, in its order, for the CSV file, the report, the MRML table, the docs."""

PLUS_MINUS = {
    "diameter_mm": "diameter_pm_mm",
    "perpendicular_mm": "perpendicular_pm_mm",
    "mean_diameter_mm": "mean_diameter_pm_mm",
    "volume_mm3": "volume_pm_mm3",
    "solid_mm": "solid_pm_mm",
}
"""The column with half the 95 % interval of a measure."""

REQUIRED = tuple(one.name for one in fields(Nodule) if one.default is MISSING)
"""The columns that the table of any version has."""

_TYPES = get_type_hints(Nodule)

_ABOVE_0 = math.nextafter(0, 1)

LIMITS = {
    **dict.fromkeys(("x", "y", "z"), (-1e5, 1e5)),
    "slice": (0, 1e5),
    **dict.fromkeys(("diameter_mm", "perpendicular_mm", "solid_mm"), (_ABOVE_0, MAX_MM)),
    "equivalent_diameter_mm": (_ABOVE_0, MAX_MM),
    **dict.fromkeys(("volume_mm3", "cavity_mm3"), (_ABOVE_0, MAX_MM3)),
    **dict.fromkeys(("mean_diameter_mm", "largest_plane_mm", "pleura_mm"), (0, MAX_MM)),
    **dict.fromkeys(PLUS_MINUS.values(), (0, MAX_MM3)),
    **dict.fromkeys(("mean_hu", "min_hu", "p10_hu", "median_hu"), (-1e6, 1e6)),
    **dict.fromkeys(("p90_hu", "max_hu"), (-1e6, 1e6)),
    "std_hu": (0, 1e6),
    **dict.fromkeys(("probability", "mean_probability"), (0, 1)),
}
"""The smallest and the largest possible number of a column."""

_ROUNDING_MM = 0.01
"""Diameters of spheres that differ by less are of the same volume."""


def most_suspicious(nodules: Iterable[Nodule]) -> Nodule | None:
    """Return the nodule to look at first, None if there is none.

    That is the one with the largest product of longest diameter and probability (1 if a person drew
    it); calcified ones come last. An order for reading, no estimate of malignancy.
    """

    def suspicion(one: Nodule) -> tuple[bool, float]:
        probability = 1.0 if one.probability is None else one.probability
        return one.kind is not NoduleKind.CALCIFIED, one.diameter_mm * probability

    return max(nodules, key=suspicion, default=None)


def write_nodules_csv(path: Path, nodules: Iterable[Nodule]) -> None:
    """Write a new UTF-8 CSV file with a header line; numbers are written exactly.

    Raises:
        InputError: if `path` exists.
    """
    csv_files.write_table(path, COLUMNS, map(astuple, nodules))


def read_nodules_csv(path: Path) -> tuple[Nodule, ...]:
    """Read what `write_nodules_csv` wrote; columns may stand in any order, others are ignored.

    Where a diameter or the volume was corrected, what is computed of it is computed again, and its
    interval is left out.

    Raises:
        InputError: naming the file, the line and the column that cannot be read.
    """
    try:
        with csv_files.open_table(path) as (header, rows):
            missing = [name for name in REQUIRED if name not in header]
            if missing:
                raise InputError(
                    f"{path} is not a table of nodules: it has no column {', '.join(missing)}; "
                    "choose the nodules.csv of a run."
                )
            nodules = tuple(_nodule(row, f"{path} line {line}") for line, row in rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a table of nodules ({error}): "
            "choose the nodules.csv of a run."
        ) from error
    ids = [one.id for one in nodules]
    if wrong := [one for one in ids if not 0 < one < MOST_NODULES or ids.count(one) > 1]:
        raise InputError(
            f"{path} has the id {wrong[0]}, where each nodule has its own from 1 on: correct the "
            "file or run again."
        )
    return nodules


def _nodule(row: dict[str, str], where: str) -> Nodule:
    values = {}
    for name, kind in _TYPES.items():
        text = row.get(name, "")
        try:
            value = values[name] = _value(text, kind)
            low, high = LIMITS.get(name, (-math.inf, math.inf))
            if isinstance(value, (int, float)) and not low <= value <= high:
                raise ValueError(text)
        except ValueError as error:
            raise InputError(
                f"{where}: '{text}' is not a value for {name}; correct the file or run again."
            ) from error
    found = Nodule(**values)
    for name in ("perpendicular_mm", "solid_mm"):
        if (values[name] or 0) > found.diameter_mm:
            raise InputError(f"{where}: {name} exceeds diameter_mm; correct the file or run again.")
    return _consistent(found)


def _consistent(row: Nodule) -> Nodule:
    """Compute again what does not fit the diameters or the volume, without their intervals."""
    mean = mean_axial_mm(row.diameter_mm, row.perpendicular_mm)
    if row.mean_diameter_mm not in (None, mean):
        row = replace(
            row,
            mean_diameter_mm=mean,
            diameter_pm_mm=None,
            perpendicular_pm_mm=None,
            mean_diameter_pm_mm=None,
        )
    sphere = float(sphere_diameter(row.volume_mm3))
    if abs(row.equivalent_diameter_mm - sphere) > _ROUNDING_MM:
        row = replace(row, equivalent_diameter_mm=round(sphere, 3), volume_pm_mm3=None)
    return row


def _value(text: str, kind: Any) -> Any:
    if isinstance(kind, UnionType):
        return None if text == "" else _value(text, get_args(kind)[0])
    value = kind(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(text)
    return value
