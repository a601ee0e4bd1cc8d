"""Bias, limits and repeatability of diameters and volumes, on artificial and on outlined nodules.

    python Testing/benchmarks/measures.py [--quick] [--processes 2] [--data ../shared/data]

Artificial lung has exact truth: nodules of 4 to 30 mm, solid, part-solid and ground glass, free, on
a vessel and on the pleura, slices of 0.6 to 5 mm, two kernels, two levels of noise; their marks are
as rough as a network's. `--quick` takes solid ones of 6 to 12 mm only. "Limits" are those of
agreement, 1.96 standard deviations to either side of the bias; "held" is the share of nodules whose
stated 95 % interval holds the truth. Then ten noises of the same nodules of 6 to 10 mm. Last, if
the data are there, LIDC-IDRI's cut-out nodules: volumes against the mask and against the mean of
what the radiologists' contours hold. The mark is the inner part of their mask. The table of
contours holds means only, so that the spread of its readers cannot be given beside.
"""

import argparse
import csv
import gzip
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from LungNoduleSegLib.nodules.outline import refine_outline
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.nodules.uncertainty import measurement_interval
from LungNoduleSegLib.phantom.chest import Place
from LungNoduleSegLib.phantom.crops import CropSpec, Kernel, Trial, measure_trials

KINDS = (NoduleKind.SOLID, NoduleKind.PART_SOLID, NoduleKind.NON_SOLID)
SIZES, SLICES, NOISES = (4, 6, 9, 14, 20, 30), (0.6, 1.25, 2.5, 5.0), (12.0, 25.0)
FIRST_SEED = 100_000
"""Beyond those of the nodules that the intervals were fitted on."""


def specs(quick: bool) -> list[CropSpec]:
    """List the nodules to be made."""
    kinds, sizes = ((KINDS[0],), (6, 8, 12)) if quick else (KINDS, SIZES)
    slices, noises = ((1.25, 2.5), (15.0,)) if quick else (SLICES, NOISES)
    kernels = (Kernel.SOFT,) if quick else tuple(Kernel)
    causes = product(kinds, Place, slices, kernels, noises, sizes, range(2 if quick else 1))
    return [
        CropSpec(size, kind, place, dz, 0.7, kernel, noise, FIRST_SEED + number)
        for number, (kind, place, dz, kernel, noise, size, _) in enumerate(causes)
    ]


def held(trial: Trial) -> list[bool]:
    """Tell of mean diameter and volume whether the interval holds the truth."""
    half = measurement_interval(
        trial.measured[3], trial.spacing, trial.kind, trial.attached, trial.noise_hu
    )
    off = np.abs(np.subtract(trial.measured, trial.truth))
    return [bool(off[2] <= half.mean_mm), bool(off[3] <= half.volume_mm3)]


def show(title: str, trials: list[Trial | None]) -> None:
    """Print one line of the table."""
    told = [one for one in trials if one is not None]
    if not told:
        return
    measured, truth = (np.array([getattr(one, n) for one in told]) for n in ("measured", "truth"))
    mm = measured[:, 2] - truth[:, 2]
    share = 100 * (measured[:, 3] / truth[:, 3] - 1)
    inside = 100 * np.mean([held(one) for one in told], axis=0)
    print(
        f"{title:<34}{len(told):4d} of {len(trials):3d} {np.median(np.abs(mm)):6.2f} "
        f"{mm.mean():+6.2f} ± {1.96 * mm.std():5.2f} mm {inside[0]:4.0f} %"
        f" {np.median(np.abs(share)):7.1f} {share.mean():+6.1f} ± {1.96 * share.std():5.1f} %"
        f" {inside[1]:4.0f} %"
    )


def show_by(title: str, trials: list[Trial | None], made: list[CropSpec], name: str) -> None:
    groups = defaultdict(list)
    for spec, trial in zip(made, trials, strict=True):
        groups[getattr(spec, name)].append(trial)
    for value, group in groups.items():
        show(f"{title}, {name} {value}", group)


def repeatability(processes: int, quick: bool) -> None:
    """Print how the volume of the same nodule varies with new noise."""
    noises, shapes = (4, 1) if quick else (10, 3)
    nodules = [(d, place, s) for d in (6, 8, 10) for place in Place for s in range(shapes)]
    noisy = [
        CropSpec(d, place=place, noise_hu=20.0, seed=FIRST_SEED + s, noise_seed=n)
        for d, place, s in nodules
        for n in range(noises)
    ]
    volumes = np.array(
        [one.measured[3] if one else np.nan for one in measure_trials(noisy, processes)]
    )
    spread = volumes.reshape(len(nodules), -1)
    variation = 100 * np.nanstd(spread, axis=1) / np.nanmean(spread, axis=1)
    print(
        "new noise, 6 to 10 mm: coefficient of variation of the volume "
        f"{np.median(variation):.1f} % median, {variation.max():.1f} % at most, "
        f"of {len(nodules)} nodules"
    )


def outlined_by_radiologists(data: Path, quick: bool) -> None:
    """Print how volumes compare with those of LIDC-IDRI's radiologists."""
    folder = data / "lidc_nodules"
    with (folder / "nodules.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    contours = defaultdict(list)
    with gzip.open(folder / "nodules_from_contours.csv.gz", "rt", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            contours[row["series"]].append(float(row["vol"]))
    ratios, told = [], 0
    rows = rows[:: 12 if quick else 1]
    for row in rows:
        image = sitk.ReadImage(folder / "image" / row["file"])
        mask = sitk.GetArrayFromImage(sitk.ReadImage(folder / "mask" / row["file"])) > 0
        spacing = np.array(image.GetSpacing())[::-1]
        volume = mask.sum() * spacing.prod()
        mean = min(contours[row["seriesuid"]], key=lambda one: abs(np.log(one / volume)))
        depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
        mark = depth >= 0.4 * depth.max()
        hu = sitk.GetArrayFromImage(image)
        (box,) = ndimage.find_objects(mark.astype(np.uint8), 1)
        found = refine_outline(hu, closed_lung(hu, spacing), spacing, box, mark[box])
        if found is not None and found.image is not None:
            told += 1
            ratios.append(
                (found.image.volume_mm3 / volume, found.image.volume_mm3 / mean, volume / mean)
            )
    for title, values in zip(
        ("mask", "contours' mean", "mask over contours"), np.array(ratios).T, strict=True
    ):
        low, middle, high = np.percentile(values, (10, 50, 90))
        within = np.mean(np.abs(np.log(values)) < np.log(1.25))
        print(
            f"LIDC-IDRI, {told} of {len(rows)}: volume over {title:<19}{middle:5.2f} median, "
            f"{low:.2f} to {high:.2f} for 80 %, within a quarter {within:.0%}"
        )


def closed_lung(hu: NDArray[np.int16], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Give the lung of a cut-out, closed over the nodule as the lungs of a run are."""
    margin = np.ceil(10 / spacing).astype(int)
    air = np.pad(hu < -500, [(n, n) for n in margin], mode="edge")
    near = ndimage.distance_transform_edt(~air, sampling=spacing) <= 10
    closed = ndimage.distance_transform_edt(near, sampling=spacing) > 10
    inner = tuple(slice(n, -n) for n in margin)
    return np.asarray(closed[inner] | (hu < -500))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--processes", type=int, default=2)
parser.add_argument("--data", type=Path, default=Path("../shared/data"))

if __name__ == "__main__":
    options = parser.parse_args()
    made = specs(options.quick)
    trials = list(measure_trials(made, options.processes))
    print(f"{'':<46}mean diameter: |error|, bias ± limits, held; volume: the same")
    for kind in dict.fromkeys(one.kind for one in made):
        for place in Place:
            here = [i for i, one in enumerate(made) if (one.kind, one.place) == (kind, place)]
            own, seen = [made[i] for i in here], [trials[i] for i in here]
            for name in ("slice_mm", "kernel", "noise_hu", "diameter_mm"):
                show_by(f"{kind}, {place}", seen, own, name)
    show("all", trials)
    repeatability(options.processes, options.quick)
    if (options.data / "lidc_nodules").is_dir():
        outlined_by_radiologists(options.data, options.quick)
