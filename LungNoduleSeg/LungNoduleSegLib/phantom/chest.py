"""A deterministic chest CT with its exact masks, as files too."""

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.geometry import image_like
from CTLungScreeningLib.hu import AIR_HU, LOWEST_HU
from CTLungScreeningLib.reading.volume_files import read_labels, write_image
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.lesions import Lesion, insert_lesion, random_lesion
from LungNoduleSegLib.nodules.measures import axial_diameters
from LungNoduleSegLib.nodules.table import NoduleKind, Place
from LungNoduleSegLib.phantom.anatomy import LEFT, RIGHT, Anatomy
from LungNoduleSegLib.phantom.canvas import Canvas, Floats, paint_skeleton
from LungNoduleSegLib.phantom.dicom import write_dicom_series
from LungNoduleSegLib.phantom.organs import (
    THREADS,
    LungTrees,
    grow_lung_trees,
    paint_tissue,
    paint_vessels,
)
from LungNoduleSegLib.results.reading import LUNGS, NODULES, read_findings

SCAN_CENTRE = np.array((0.0, 12.0, -38.0))
"""The middle of every scan in LPS mm; the carina is near 0."""


_AHEAD = 16
"""Slices whose noise is drawn before they are scanned."""


@dataclass(frozen=True)
class LesionRequest:
    """A lesion by what it is and where it lies, its exact place left to the phantom."""

    diameter_mm: float
    kind: NoduleKind = NoduleKind.SOLID
    place: Place = Place.FREE


DEMO_LESIONS = (
    LesionRequest(14, NoduleKind.SOLID, Place.PLEURA),
    LesionRequest(9, NoduleKind.SOLID, Place.VESSEL),
    LesionRequest(18, NoduleKind.PART_SOLID),
    LesionRequest(15, NoduleKind.NON_SOLID),
    LesionRequest(7, NoduleKind.CALCIFIED),
    LesionRequest(24, NoduleKind.SOLID),
)


@dataclass(frozen=True)
class PhantomSpec:
    """A phantom to be made. The defaults give a scan like a real one, lung apex to kidneys.

    Attributes:
        seed: the patient: size, fat, vessels, contrast medium, and the places of the lesions.
        size: voxels along x, y, z.
        spacing: mm along x, y, z; the axes are the patient's (LPS).
        lesions: what is put into the lungs: at a given place, or wherever a request finds one.
        noise_hu: standard deviation of the noise at the middle of the body.
        psf_mm: standard deviation of the scanner's in-plane blur.
    """

    seed: int = 0
    size: tuple[int, int, int] = (512, 512, 120)
    spacing: tuple[float, float, float] = (0.7, 0.7, 2.5)
    lesions: tuple[Lesion | LesionRequest, ...] = DEMO_LESIONS
    noise_hu: float = 18.0
    psf_mm: float = 0.6


@dataclass(frozen=True)
class Phantom:
    """A chest CT and the truth about it, all on one grid.

    Attributes:
        image: int16 HU; `AIR_HU` outside the reconstruction circle.
        lungs: uint8, 1 right, 2 left; vessels and lesions within the pleura belong to them, the
            trachea and the main bronchi up to the hilum do not.
        nodules: uint16, 1 for the first of `lesions` and so on.
        airways: uint8, 1 in the lumen of trachea and bronchi.
        lesions: every lesion with its place.
    """

    image: sitk.Image
    lungs: sitk.Image
    nodules: sitk.Image
    airways: sitk.Image
    lesions: tuple[Lesion, ...]


def make_phantom(spec: PhantomSpec = PhantomSpec()) -> Phantom:
    """Make a chest CT; the same `spec` gives the same voxels.

    Raises:
        InputError: if a lesion finds no place in the lungs or lies outside the scan.
    """
    patient, growth, tissue, placing, noise = (
        np.random.default_rng((spec.seed, part)) for part in range(5)
    )
    canvas = Canvas(_grid(spec), np.empty(spec.size[::-1], np.float32))
    anatomy = Anatomy.of(patient)
    lungs = paint_tissue(canvas, anatomy, tissue)
    paint_skeleton(canvas, anatomy)
    trees = {side: grow_lung_trees(anatomy, side, growth) for side in (RIGHT, LEFT)}
    airways = paint_vessels(canvas, anatomy, trees)

    lesions = place_lesions(spec.lesions, anatomy, trees, placing)
    nodules = np.zeros(lungs.shape, np.uint16)
    for number, lesion in enumerate(lesions, 1):
        inside = lungs > 0
        try:
            inserted = insert_lesion(canvas.hu, canvas.geometry, lesion, 0.0, inside)
        except ValueError as error:
            raise InputError(f"{error}: give the phantom more slices or another place.") from error
        nodules[inserted.box][inserted.mask] = number

    hu = _scan(canvas, spec, lungs > 0, noise)
    grid = canvas.geometry
    return Phantom(
        image=image_like(hu, grid),
        lungs=image_like(lungs, grid),
        nodules=image_like(nodules, grid),
        airways=image_like(airways, grid),
        lesions=lesions,
    )


def _grid(spec: PhantomSpec) -> sitk.Image:
    grid = sitk.Image(spec.size, sitk.sitkUInt8)
    grid.SetSpacing(spec.spacing)
    half = (np.array(spec.size) - 1) / 2 * spec.spacing
    grid.SetOrigin((SCAN_CENTRE - half).tolist())
    return grid


def place_lesions(
    wanted: tuple[Lesion | LesionRequest, ...],
    anatomy: Anatomy,
    trees: dict[int, LungTrees],
    rng: np.random.Generator,
) -> tuple[Lesion, ...]:
    """Find a place for every request, clear of the other lesions.

    Raises:
        InputError: if there is none.
    """
    low, high = anatomy.world([(-135, -105, -120), (135, 115, 90)])
    points = rng.uniform(low, high, (20000, 3))
    x, y, z = points.T.astype(np.float32)
    depth = -np.minimum(*anatomy.lungs(x, y, z).values())
    to_wall = -anatomy.cage(x, y, z)
    to_rest = np.minimum(anatomy.mediastinum(x, y, z), anatomy.diaphragm(x, y, z))
    arteries = [lung.arteries for lung in trees.values()]
    middles = np.concatenate([(tree.start + tree.end) / 2 for tree in arteries])
    radii = np.concatenate([tree.radius for tree in arteries])
    to_vessel = cKDTree(middles[radii > 1.2]).query(points)[0]
    to_branch = cKDTree(middles[(radii > 1.2) & (radii < 2.5)]).query(points)[0]

    placed = [lesion for lesion in wanted if isinstance(lesion, Lesion)]
    result: list[Lesion] = []
    for lesion in wanted:
        if isinstance(lesion, Lesion):
            result.append(lesion)
            continue
        radius = lesion.diameter_mm / 2
        if lesion.place is Place.PLEURA:
            fits = (np.abs(depth - 0.45 * radius) < 0.1 * radius) & (depth > to_wall - 0.5)
            fits &= to_rest > 2 * radius + 5
        elif lesion.place is Place.VESSEL:
            fits = (depth > radius + 6) & (np.abs(to_branch - 0.8 * radius) < 0.2 * radius)
        else:
            fits = (depth > 1.4 * radius + 3) & (to_vessel > radius + 4)
        for other in placed:
            distance = np.linalg.norm(points - other.centre, axis=1)
            fits &= distance > radius + other.diameter_mm / 2 + 15
        if not fits.any():
            raise InputError(
                f"No place is left in the lungs for a {lesion.diameter_mm:g} mm lesion "
                f"({lesion.place.value}): ask for fewer or smaller ones."
            )
        cx, cy, cz = points[np.flatnonzero(fits)[0]].tolist()
        placed.append(random_lesion(rng, (cx, cy, cz), lesion.kind, lesion.diameter_mm))
        result.append(placed[-1])
    return tuple(result)


def _scan(
    canvas: Canvas, spec: PhantomSpec, lungs: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int16]:
    """Return what a scanner would make of the painted volume: texture, blur, noise, a circle."""
    sigma = spec.psf_mm / np.array(spec.spacing[:2])
    x, y = canvas.axis(0)[None], canvas.axis(1)[:, None]
    across = (x - x.mean()) ** 2 + (y - y.mean()) ** 2
    circle = across <= min(np.ptp(x), np.ptp(y)) ** 2 / 4
    strength = spec.noise_hu * np.clip(1.1 - across / 170**2, 0.35, 1)
    result = np.empty(canvas.hu.shape, np.int16)
    fine = max(0.9 / spec.spacing[0], 0.4)
    shape = canvas.hu.shape[1:]

    def scan(k: int, texture: Floats | None, noise: Floats) -> None:
        if texture is not None:
            canvas.hu[k] += 16 * lungs[k] * grain(texture, 1.6 * fine)
        blurred = ndimage.gaussian_filter(canvas.hu[k], sigma[::-1])
        blurred += strength * grain(noise, fine)
        result[k] = np.clip(np.where(circle, np.rint(blurred), AIR_HU), LOWEST_HU, 3071)

    def drawn(k: int) -> tuple[int, Floats | None, Floats]:
        texture = rng.standard_normal(shape, np.float32) if lungs[k].any() else None
        return k, texture, rng.standard_normal(shape, np.float32)

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(lungs), _AHEAD):  # drawn in order, whatever the threads do
            slices = range(start, min(start + _AHEAD, len(lungs)))
            list(pool.map(lambda one: scan(*one), map(drawn, slices)))
    return result


def grain(white: Floats, sigma: float) -> Floats:
    """Remove the highest and lowest frequencies of noise, as a CT does; its deviation is then 1."""
    band = ndimage.gaussian_filter(white, sigma * 0.6, truncate=3)
    band -= ndimage.gaussian_filter(band, sigma * 2, truncate=2)
    return band / np.float32(band.std())


SERIES, TRUTH = "dicom", "truth"
AIRWAYS, LESIONS = "airways.nii.gz", "lesions.csv"


def write_phantom(phantom: Phantom, folder: Path) -> None:
    """Write the scan as a DICOM series into `folder/dicom` and the masks into `folder/truth`.

    `truth` holds the lungs, nodules and airways as `.nii.gz` and `lesions.csv` with number, LPS
    centre in mm, diameter in mm and kind of each lesion.

    Raises:
        InputError: if either folder exists.
    """
    refuse_existing(folder, [SERIES, TRUTH])
    with whole_output(folder) as whole:
        write_dicom_series(phantom.image, whole / SERIES)
        for name, image in (
            (LUNGS, phantom.lungs),
            (NODULES, phantom.nodules),
            (AIRWAYS, phantom.airways),
        ):
            with new_file(whole / TRUTH / name) as temporary:
                write_image(image, temporary)
        csv_files.write_table(
            whole / TRUTH / LESIONS,
            ("number", "x", "y", "z", "diameter_mm", "kind"),
            (
                (number, *lesion.centre, lesion.diameter_mm, lesion.kind)
                for number, lesion in enumerate(phantom.lesions, 1)
            ),
        )


def compare_with_truth(truth: Path, results: Path) -> str:
    """Describe for each lesion of a phantom the nodule found on it, and the false positives.

    Beside the measures of the nodule stand those that the same ruler takes of the exact mask.

    Args:
        truth: a folder that `write_phantom` wrote.
        results: the folder of a run on that phantom.
    """
    with (truth / LESIONS).open(encoding="utf-8", newline="") as stream:
        lesions = list(csv.DictReader(stream))
    true_image = read_labels(truth / NODULES)
    _, found_image, rows = read_findings(results)
    nodules = {row.id: row for row in rows}
    true_labels, found_labels = map(sitk.GetArrayFromImage, (true_image, found_image))
    spacing = np.array(true_image.GetSpacing())[::-1]
    lines, matched = [], set()
    for lesion in lesions:
        mask = true_labels == int(lesion["number"])
        hits = [int(n) for n in np.unique(found_labels[mask]) if n]
        matched.update(hits)
        found = ", ".join(
            f"nodule {n}, {nodules[n].diameter_mm:.1f} mm, {nodules[n].volume_mm3:.0f} mm³, "
            f"{nodules[n].kind}"
            for n in hits
        )
        if hits:
            exact = axial_diameters(mask, (slice(0, 0),) * 3, spacing).longest_mm
            volume = mask.sum() * spacing.prod()
            found += f"; its exact mask measures {exact:.1f} mm, {volume:.0f} mm³"
        lines.append(
            f"  {float(lesion['diameter_mm']):4.1f} mm {lesion['kind']:<10} "
            f"{'found as ' + found if hits else 'missed'}"
        )
    lines.append(f"  {counted(len(nodules) - len(matched), 'false positive')}")
    return "\n".join(["The lesions put into the phantom:", *lines])
