"""The labels of a lung mask, and the methods that make one; sides are the patient's."""

from collections.abc import Iterator, Mapping
from enum import StrEnum

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import TOUCHING, box_of

RIGHT_LUNG = 1
LEFT_LUNG = 2

LEAST_ML, MOST_ML = 1000, 9000
"""Both lungs of an adult hold as much, however deep the breath."""

LEAST_OF_OTHER = 0.5
"""Minimum volume of the smaller lung over the larger one's; in healthy chests it is about 0.85."""

LARGEST_SECOND_PART = 0.02
"""Share of a lung that may lie apart from the rest: a slice's edge, a lobe's tip."""

AIR_ALONE_HU, AIR_BLOCK_MM, MOST_AIR = -970, 5, 0.1
"""Blocks of about so many millimetres hold air and no lung if their mean lies below this; more than
the last share of a lung do not. Of eight scans without a pneumothorax 4 % of a lung did at most,
with 150 HU of noise added to one of them 1 %; where a third of a lung was made air, 32 %."""


MOST_AT_END = 0.1
"""Share of the lungs' largest section that may lie in the first or last one of the scan."""

HIGHEST_MEDIAN_HU = -400
"""Half of a lung's voxels are darker, even of one with much disease; of other organs none are."""


def lung_volumes_ml(lungs: sitk.Image) -> dict[str, float]:
    """Volume of each lung of a mask in ml, by its side."""
    array = sitk.GetArrayViewFromImage(lungs)
    ml = float(np.prod(lungs.GetSpacing())) / 1000
    sides = {"right": RIGHT_LUNG, "left": LEFT_LUNG}
    return {side: np.count_nonzero(array == label) * ml for side, label in sides.items()}


def alike(volumes_ml: Mapping[str, float]) -> bool:
    """Whether both lungs are there, and neither is far smaller, by `lung_volumes_ml`."""
    smaller, larger = sorted(volumes_ml.values())
    return smaller >= LEAST_OF_OTHER * larger


def implausible(lungs: sitk.Image, hu: sitk.Image) -> tuple[str, ...]:
    """Return a sentence for each implausible property of the lungs of a whole chest.

    A lung is missing or far smaller than the other; both together hold less than `LEAST_ML` or more
    than `MOST_ML`; a lung is in parts; or more than `MOST_AIR` of it is air alone. It also applies
    to a scan of a part of the chest, and to a patient without a lung.

    Args:
        lungs: labels, axial.
        hu: the scan in HU on the same grid.
    """
    from scipy import ndimage  # noqa: PLC0415 - slow to import, and all commands import labels

    volumes = lung_volumes_ml(lungs)
    missing = [side for side, ml in volumes.items() if not ml]
    found = [f"No {side} lung was found: check whether it is there." for side in missing]
    total = sum(volumes.values())
    if not LEAST_ML <= total <= MOST_ML:
        found.append(
            f"The lungs hold {total:.0f} ml, outside {LEAST_ML} to {MOST_ML}: check their outline."
        )
    smaller, larger = sorted(volumes, key=lambda side: volumes[side])
    if not missing and not alike(volumes):
        share = volumes[smaller] / volumes[larger]
        found.append(
            f"The {smaller} lung holds {share:.0%} of what the {larger} one holds: check whether "
            "a part of it is missing."
        )
    for side, label in (("right", RIGHT_LUNG), ("left", LEFT_LUNG)):
        if side not in missing:
            lung = sitk.GetArrayViewFromImage(lungs) == label
            parts, _ = ndimage.label(lung[box_of(lung)], TOUCHING)
            sizes = np.bincount(parts.ravel())[1:]
            second = 1 - sizes.max() / sizes.sum()
            if second > LARGEST_SECOND_PART:
                found.append(
                    f"The {side} lung lies in {len(sizes)} parts, {second:.0%} of it outside the "
                    "largest: check its outline."
                )
    return *found, *_air_alone(lungs, hu)


def _air_alone(lungs: sitk.Image, hu: sitk.Image) -> Iterator[str]:
    """Name each lung with more air outside lung tissue than `MOST_AIR`."""
    factor = [
        min(size, max(1, round(AIR_BLOCK_MM / mm)))
        for size, mm in zip(hu.GetSize(), hu.GetSpacing(), strict=True)
    ]
    sides = sitk.GetArrayFromImage(sitk.Shrink(lungs, factor))
    air = sitk.GetArrayFromImage(sitk.BinShrink(hu, factor)) < AIR_ALONE_HU
    for side, label in (("right", RIGHT_LUNG), ("left", LEFT_LUNG)):
        blocks = sides == label
        share = (air & blocks).sum() / max(blocks.sum(), 1)
        if share > MOST_AIR:
            yield (
                f"{share:.0%} of the {side} lung is as black as air (pneumothorax, a bulla or "
                "severe emphysema): its volume counts it."
            )


ENDS = (("bottom", "top"), ("front", "back"), ("right", "left"))
"""Names of the first and last section of an axial image along z, y and x; sides are the
patient's."""


def cut_lungs(lungs: sitk.Image) -> tuple[str, ...]:
    """Note where a scan ends within the lungs, so that a part of them cannot be judged.

    Args:
        lungs: labels, axial, of the whole scan.
    """
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    cut = []
    for axis, names in enumerate(ENDS):
        section = inside.sum(axis=tuple({0, 1, 2} - {axis}))
        cut += [names[end] for end in (0, -1) if section[end] > MOST_AT_END * section.max()]
    if not cut:
        return ()
    return (
        f"The scan ends within the lungs, at the {' and the '.join(cut)}: nothing can be said of "
        "what lies beyond, and by Lung-RADS the examination is incomplete unless other images show "
        "it.",
    )


class LungMethod(StrEnum):
    """How the lungs are found."""

    VOLUME = "volume"
    """In 3-D, the default: see `volume`."""
    TUTORIAL = "tutorial"
    """Slice by slice as in the Data Science Bowl tutorial: see `tutorial`."""
    LUNGMASK = "lungmask"
    """By the program lungmask, with lobes: see `programs`."""
    TOTALSEGMENTATOR = "totalsegmentator"
    """By the program TotalSegmentator, with lobes: see `programs`."""


OWN_METHODS = (LungMethod.VOLUME, LungMethod.TUTORIAL)
"""Those that need no other program."""


class Lobe(StrEnum):
    """A lobe of the patient's right or left lung."""

    RIGHT_UPPER = "right upper"
    RIGHT_MIDDLE = "right middle"
    RIGHT_LOWER = "right lower"
    LEFT_UPPER = "left upper"
    LEFT_LOWER = "left lower"

    @property
    def is_right(self) -> bool:
        """Whether it belongs to the right lung."""
        return self.startswith("right")

    @property
    def is_upper(self) -> bool:
        """Whether it is an upper lobe."""
        return self.endswith("upper")


LOBES = tuple(Lobe)
"""In a label image of lobes n stands for `LOBES[n - 1]`."""


def require_lungs(lungs: sitk.Image, axial: sitk.Image, source: str) -> None:
    """Check that labels mark lungs in a scan.

    Args:
        lungs: not 0 in the lungs.
        axial: the scan in HU on the same grid.
        source: begins the message.

    Raises:
        InputError: if they mark nothing, or what is too dense for a lung.
    """
    array = sitk.GetArrayViewFromImage(lungs)
    if not array.any():
        raise InputError(f"{source} marks no lung within the scan: give the lungs of this scan.")
    median = float(np.median(sitk.GetArrayViewFromImage(axial)[array > 0]))
    if median > HIGHEST_MEDIAN_HU:
        raise InputError(
            f"{source} marks something with a median of {median:.0f} HU in the scan, which is not "
            "lung: give the lungs of this scan."
        )
