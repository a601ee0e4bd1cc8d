"""How often growth over four dates is right: one patient of the phantom in 100 noise realizations.

    python docs/growth_realizations.py [REALIZATIONS]

The patient has three nodules at days 0, 90, 365 and 730: one doubles its volume every 200 days,
one every 400 days, one does not grow. In each realization each scan has noise of its own, and the
nodule is of another shape and lies elsewhere between the voxels; it is outlined and measured as a
run does it. Counted is how often the 95 % interval of the growth rate, and so of the doubling time,
holds the truth, and how often a nodule is called grown. Prints a Markdown table.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from scipy import ndimage

from LungNoduleSegLib.nodules.outline import refine_outline
from LungNoduleSegLib.risk.growth_rate import Change, growth_rate, volume_deviation

sys.path.append(str(Path(__file__).parents[1] / "LungNoduleSeg" / "Scripts"))
from nodule_crops import CropSpec, Kernel, make_crop

DAYS = (0, 90, 365, 730)
DOUBLING_DAYS = (200.0, 400.0, math.inf)


@dataclass(frozen=True)
class Setting:
    """Settings of the scans, and the size of each nodule on the first date."""

    slice_mm: float
    kernel: Kernel
    noise_hu: float
    diameter_mm: float


SETTINGS = (Setting(1.25, Kernel.SOFT, 20.0, 8.0), Setting(2.5, Kernel.SHARP, 30.0, 6.0))


def measured_mm3(setting: Setting, diameter_mm: float, seed: int) -> tuple[float, float]:
    """Scan a nodule once; give the volume that is measured, and its deviation."""
    crop = make_crop(
        CropSpec(
            diameter_mm,
            slice_mm=setting.slice_mm,
            kernel=setting.kernel,
            noise_hu=setting.noise_hu,
            seed=seed,
        )
    )
    (box,) = ndimage.find_objects(crop.mask.astype("uint8"))
    found = refine_outline(crop.hu, crop.lungs, crop.spacing, box, crop.mask[box])
    seen = found and found.image
    volume = seen.volume_mm3 if seen else crop.mask.sum() * crop.spacing.prod()
    return float(volume), volume_deviation(float(volume), crop.spacing.tolist())


def realization(setting: Setting, doubling: float, seed: int) -> tuple[bool, Change]:
    """Follow a nodule through four scans: whether the interval holds the truth, and its change."""
    scans = [
        measured_mm3(setting, setting.diameter_mm * 2 ** (day / doubling / 3), 10 * seed + n)
        for n, day in enumerate(DAYS)
    ]
    volumes, deviations = zip(*scans, strict=True)
    rate = growth_rate(DAYS, volumes, deviations)
    return rate.low <= math.log(2) / doubling <= rate.high, rate.change


def main() -> None:
    """Print how often the intervals hold, and how often growth is called."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print("| slices, kernel, noise | first diameter | doubling time | interval covers it | grown |")
    print("|---|---|---|---|---|")
    for setting in SETTINGS:
        for doubling in DOUBLING_DAYS:
            found = [realization(setting, doubling, seed) for seed in range(count)]
            held = sum(holds for holds, _ in found)
            grown = sum(change is Change.GROWN for _, change in found)
            scan = f"{setting.slice_mm:g} mm, {setting.kernel}, {setting.noise_hu:g} HU"
            days = "none" if math.isinf(doubling) else f"{doubling:g} days"
            print(
                f"| {scan} | {setting.diameter_mm:g} mm | {days} | {held} of {count} "
                f"| {grown} of {count} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
