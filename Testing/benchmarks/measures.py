"""Bias, limits and repeatability of diameters and volumes, on artificial and on outlined nodules.

    python Testing/benchmarks/measures.py [--quick] [--real] [--minutes 40] [--processes 2]
        [--data ../shared/data]

Artificial lung has exact truth: nodules of 4 to 30 mm, solid, part-solid and ground glass, free, on
a vessel and on the pleura, slices of 0.6 to 5 mm, two kernels, two levels of noise; their marks are
as rough as a network's. They are taken in random order, so that those of the first `--minutes` are
of all sorts; `--quick` takes solid ones of 6 to 12 mm only. "Limits" are those of
agreement, 1.96 standard deviations to either side; "covered" is the share of nodules whose
stated 95 % interval contains the truth. Then ten noises of the same nodules of 6 to 10 mm. Last, if
the data are there, LIDC-IDRI's cut-out nodules from three kinds of marks: the inner part of the
mask, the whole mask, which holds what any reader outlined, and what a click in its middle grows;
their volumes and longest diameters stand beside those of the radiologists. Before that, how many of
the masks come out as calcified: as they are, with more noise and by a sharper kernel.
Patients of even numbers served development, odd ones were held out.
"""

import argparse
import csv
import gzip
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise, product
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.attenuation import lung_noise, nodule_kind
from LungNoduleSegLib.nodules.measures import axial_diameters
from LungNoduleSegLib.nodules.outline import refine_outline
from LungNoduleSegLib.nodules.region_growing import grow_nodule
from LungNoduleSegLib.nodules.table import NoduleKind, sphere_diameter
from LungNoduleSegLib.nodules.uncertainty import measurement_interval
from LungNoduleSegLib.phantom.chest import Place

sys.path.append(str(Path(__file__).parents[2] / "LungNoduleSeg" / "Scripts"))
from nodule_crops import CropSpec, Kernel, Trial, measure_trials

KINDS = (NoduleKind.SOLID, NoduleKind.PART_SOLID, NoduleKind.NON_SOLID)
SIZES, SLICES, NOISES = (4, 6, 9, 14, 20, 30), (0.6, 1.25, 2.5, 5.0), (12.0, 25.0)
FIRST_SEED = 100_000
"""Beyond those of the nodules that the intervals were fitted on."""

STEP_PIXELS = 1.17
"""From one point of an outline to the next, on average over LIDC-IDRI-0001's four readers."""

MORE_NOISE_HU = 130

MOST_UNLIKE = 0.7
"""A row of the table of contours that differs more belongs to another nodule."""


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
        *trial.measured[2:4],
        trial.spacing,
        trial.kind,
        trial.attached,
        trial.contact,
        trial.noise_hu,
    )
    off = np.abs(np.subtract(trial.measured, trial.truth))
    return [bool(off[2] <= half.mean_mm), bool(off[3] <= half.volume_mm3)]


def show(title: str, trials: list[Trial | None]) -> None:
    """Print one line of the table."""
    known = [one for one in trials if one is not None]
    if not known:
        return
    measured, truth = (np.array([getattr(one, n) for one in known]) for n in ("measured", "truth"))
    mm = measured[:, 2] - truth[:, 2]
    share = 100 * (measured[:, 3] / truth[:, 3] - 1)
    inside = 100 * np.mean([held(one) for one in known], axis=0)
    print(
        f"{title:<34}{len(known):4d} of {len(trials):3d} {np.median(np.abs(mm)):6.2f} "
        f"{mm.mean():+6.2f} ± {1.96 * mm.std():5.2f} mm {inside[0]:4.0f} %"
        f" {np.median(np.abs(share)):7.1f} {share.mean():+6.1f} ± {1.96 * share.std():5.1f} %"
        f" {inside[1]:4.0f} %"
    )


def show_by(title: str, trials: list[Trial | None], made: list[CropSpec], name: str) -> None:
    groups = defaultdict(list)
    for spec, trial in zip(made, trials, strict=True):
        groups[getattr(spec, name)].append(trial)
    for value, group in sorted(groups.items()):
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


@dataclass(frozen=True)
class Outlined:
    """One nodule of LIDC-IDRI as its radiologists outlined it, and as it is measured.

    Attributes:
        row: of `nodules.csv`.
        readers: mean volume (mm³) of what each radiologist outlined.
        most: volume of all voxels that any of them outlined: the mask.
        measured: volume by the name of the mark.
        readers_mm: mean longest axial diameter of what each radiologist outlined.
        longest_mm: the same as measured, by the name of the mark.
    """

    row: dict[str, str]
    readers: float
    most: float
    measured: dict[str, float]
    readers_mm: float
    longest_mm: dict[str, float]

    @property
    def diameter_mm(self) -> float:
        return float(sphere_diameter(self.readers))


def readers_volume(contour: dict[str, str], spacing: NDArray[np.float64]) -> float:
    """Mean volume (mm³) within the outlines of a nodule, without the pixels on the lines.

    LIDC-IDRI's lines run through the first pixels outside the nodule (see `lidc_idri`); the table
    holds the volume of the polygons through their middles, `vol`, and the length of all lines
    times the distance of slices, `sarea`. By Pick's theorem the pixels within a polygon are its
    area, less half the number of points on the line, plus one.
    """
    dz, pixel = spacing[:2]
    on_lines = float(contour["sarea"]) * pixel / STEP_PIXELS
    return float(contour["vol"]) - on_lines / 2 + float(contour["nsl"]) * dz * pixel**2


def contours_of(
    rows: list[dict[str, str]], masks: list[sitk.Image], contours: list[dict[str, str]]
) -> list[dict[str, str] | None]:
    """Find for each nodule of a series its row in the table of contours, by volume and extent."""
    unlike = np.empty((len(rows), len(contours)))
    for i, (row, image) in enumerate(zip(rows, masks, strict=True)):
        spacing = np.array(image.GetSpacing())
        places = np.argwhere(sitk.GetArrayViewFromImage(image))[:, ::-1]
        own = [len(places) * spacing.prod(), *(np.ptp(places, axis=0) + 1) * spacing]
        for j, contour in enumerate(contours):
            other = [float(contour[name]) for name in ("vol", "wx", "wy", "wz")]
            unlike[i, j] = np.abs(np.log(np.divide(own, other))) @ [1, 0.5, 0.5, 0.5]
            unlike[i, j] += 0.1 * abs(float(contour["texture"]) - float(row["Texture_value"]))
    found: list[dict[str, str] | None] = [None] * len(rows)
    for i, j in zip(*linear_sum_assignment(unlike), strict=True):
        if unlike[i, j] < MOST_UNLIKE:
            found[i] = contours[j]
    return found


def measure_outlined(task: tuple[Path, dict[str, str], dict[str, str]]) -> Outlined:
    """Measure one nodule from each kind of mark."""
    folder, row, contour = task
    image = sitk.ReadImage(folder / "image" / row["file"])
    mask = sitk.GetArrayFromImage(sitk.ReadImage(folder / "mask" / row["file"])) > 0
    spacing = np.array(image.GetSpacing())[::-1]
    hu = sitk.GetArrayFromImage(image)
    lung = closed_lung(hu, spacing)
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    marks = {"inner part": depth >= 0.4 * depth.max(), "mask": mask, "click": None}
    lungs = sitk.GetImageFromArray(lung.astype(np.uint8))
    lungs.CopyInformation(image)
    middle = np.unravel_index(depth.argmax(), depth.shape)
    point = image.TransformIndexToPhysicalPoint([int(i) for i in middle[::-1]])
    with suppress(InputError):
        grown = grow_nodule(image, lungs, point)
        marks["click"] = np.zeros_like(mask)
        marks["click"][grown.box] = grown.sure
    measured, longest = {}, {}
    for name, mark in marks.items():
        measured[name] = longest[name] = np.nan
        if mark is None:
            continue
        (box,) = ndimage.find_objects(mark.astype(np.uint8), 1)
        found = refine_outline(hu, lung, spacing, box, mark[box])
        if found is not None and found.image is not None:
            measured[name] = found.image.volume_mm3
            longest[name] = axial_diameters(found.image.field, found.box, spacing).longest_mm
    voxels = float(mask.sum() * spacing.prod())
    readers_mm = float(contour["maxd"]) - spacing[2]  # from pixel to pixel outside the nodule
    volume = readers_volume(contour, spacing)
    return Outlined(row, volume, voxels, measured, readers_mm, longest)


def outlined_by_radiologists(data: Path, quick: bool, processes: int) -> None:
    """Print how volumes compare with those of LIDC-IDRI's radiologists."""
    folder = data / "lidc_nodules"
    with (folder / "nodules.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    contours, series = defaultdict(list), defaultdict(list)
    with gzip.open(folder / "nodules_from_contours.csv.gz", "rt", encoding="utf-8") as stream:
        for contour in csv.DictReader(stream):
            contours[contour["series"]].append(contour)
    for row in rows:
        series[row["seriesuid"]].append(row)
    tasks = []
    for uid, own in series.items():
        masks = [sitk.ReadImage(folder / "mask" / row["file"]) for row in own]
        pairs = zip(own, contours_of(own, masks, contours[uid]), strict=True)
        tasks += [(folder, row, contour) for row, contour in pairs if contour is not None]
    with Pool(processes) as pool:
        nodules = pool.map(measure_outlined, tasks[:: 12 if quick else 1], chunksize=4)
    print(
        f"LIDC-IDRI, {len(nodules)} of {len(rows)} nodules whose outlines were found\n"
        f"{'':<26}volume over the readers' mean: median, 80 %; within their spread; over the mask; "
        "longest axial diameter less theirs, mm: median, 80 %"
    )
    for mark in nodules[0].measured:
        show_outlined(f"{mark}, all", nodules, mark)
        for half, title in enumerate(("even patients", "odd patients")):
            here = [n for n in nodules if int(n.row["patient_id"][-4:]) % 2 == half]
            show_outlined(f"{mark}, {title}", here, mark)
        for low, high in pairwise((0, 6, 8, 12, 20, 60)):
            here = [n for n in nodules if low <= n.diameter_mm < high]
            show_outlined(f"{mark}, {low} to {high} mm", here, mark)
        for rating, title in (("1", "ground glass"), ("234", "mixed"), ("5", "solid")):
            here = [n for n in nodules if n.row["Texture_value"] in rating]
            show_outlined(f"{mark}, {title}", here, mark)


def show_outlined(title: str, nodules: list[Outlined], mark: str) -> None:
    """Print one line: a nodule lies within the spread if it is no farther from the mean, as a
    ratio, than all voxels that any reader outlined are."""
    known = [n for n in nodules if np.isfinite(n.measured[mark])]
    if not known:
        return
    measured = np.array([n.measured[mark] for n in known])
    readers, most = (np.array([getattr(n, name) for n in known]) for name in ("readers", "most"))
    low, middle, high = np.percentile(measured / readers, (10, 50, 90))
    within = np.abs(np.log(measured / readers)) <= np.log(most / readers)
    off = np.percentile([n.longest_mm[mark] - n.readers_mm for n in known], (50, 10, 90))
    print(
        f"{title:<26}{len(known):4d} of {len(nodules):3d} {middle:6.2f}  {low:.2f} to {high:.2f}"
        f" {within.mean():5.0%} {np.median(measured / most):6.2f}"
        f" {off[0]:+6.2f}  {off[1]:+.2f} to {off[2]:+.2f}"
    )


def closed_lung(hu: NDArray[np.int16], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Give the lung of a cut-out, closed over the nodule as the lungs of a run are."""
    margin = np.ceil(10 / spacing).astype(int)
    air = np.pad(hu < -500, [(n, n) for n in margin], mode="edge")
    near = ndimage.distance_transform_edt(~air, sampling=spacing) <= 10
    closed = ndimage.distance_transform_edt(near, sampling=spacing) > 10
    inner = tuple(slice(n, -n) for n in margin)
    return np.asarray(closed[inner] | (hu < -500))


def calcified(task: tuple[Path, dict[str, str]]) -> list[bool]:
    """Tell whether a nodule comes out as calcified: as it is, noisier, and sharper."""
    folder, row = task
    image = sitk.ReadImage(folder / "image" / row["file"])
    mask = sitk.GetArrayFromImage(sitk.ReadImage(folder / "mask" / row["file"])) > 0
    spacing = np.array(image.GetSpacing())[::-1]
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=hu.shape).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, (0, 0.7, 0.7))
    sharper = 2 * hu - ndimage.gaussian_filter(hu, (0, *(1 / spacing[1:])))
    seen = hu, hu + noise * (MORE_NOISE_HU / noise.std()), sharper
    return [
        nodule_kind(one, mask, spacing, lung_noise(one)) is NoduleKind.CALCIFIED for one in seen
    ]


def calcification(data: Path, quick: bool, processes: int) -> None:
    """Print how many nodules of LIDC-IDRI come out as calcified, by the radiologists' rating."""
    folder = data / "lidc_nodules"
    with (folder / "nodules.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[:: 12 if quick else 1]
    with Pool(processes) as pool:
        found = np.array(pool.map(calcified, [(folder, row) for row in rows], chunksize=4))
    rated = np.array([row["Calcification"] != "Absent" for row in rows])
    odd = np.array([int(row["patient_id"][-4:]) % 2 == 1 for row in rows])
    small = np.array([float(row["diameter_mm"]) < 6 for row in rows])
    print(f"calcified as they are, with {MORE_NOISE_HU} HU of noise, by a sharper kernel")
    for title, here in (
        ("rated as not calcified, even patients", ~rated & ~odd),
        ("rated as not calcified, odd patients", ~rated & odd),
        ("rated as calcified, even patients", rated & ~odd),
        ("rated as calcified, odd patients", rated & odd),
        ("rated as calcified, under 6 mm", rated & small),
    ):
        print(f"{title:<40}{here.sum():4d}: {found[here].sum(axis=0)}")


def artificial(quick: bool, processes: int, minutes: float) -> None:
    """Print the tables of artificial nodules."""
    made = specs(quick)
    np.random.default_rng(0).shuffle(made)
    began, trials = time.monotonic(), []
    for trial in measure_trials(made, processes):
        trials.append(trial)
        if time.monotonic() - began > 60 * minutes:
            break
    print(f"{len(trials)} of {len(made)} artificial nodules")
    made = made[: len(trials)]
    print(f"{'':<46}mean diameter: |error|, bias ± limits, covered; volume: the same")
    for kind in KINDS:
        for place in Place:
            here = [i for i, one in enumerate(made) if (one.kind, one.place) == (kind, place)]
            own, seen = [made[i] for i in here], [trials[i] for i in here]
            for name in ("slice_mm", "kernel", "noise_hu", "diameter_mm"):
                show_by(f"{kind}, {place}", seen, own, name)
    show("all", trials)
    repeatability(processes, quick)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--real", action="store_true", help="only the nodules of LIDC-IDRI")
parser.add_argument("--minutes", type=float, default=np.inf, help="for artificial nodules")
parser.add_argument("--processes", type=int, default=2)
parser.add_argument("--data", type=Path, default=Path("../shared/data"))

if __name__ == "__main__":
    options = parser.parse_args()
    if not options.real:
        artificial(options.quick, options.processes, options.minutes)
    if (options.data / "lidc_nodules").is_dir():
        calcification(options.data, options.quick, options.processes)
        outlined_by_radiologists(options.data, options.quick, options.processes)
