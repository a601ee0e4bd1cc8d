"""The data that the bundled nodule model learns from, read from a folder or from one packed file.

A pack is a zip of `.npy` arrays and a JSON index, small enough to be carried to a machine that has
nothing but numpy, scipy, SimpleITK and Keras. HU are kept in steps of `STEP_HU`, and what lies far
from the lungs is left out.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.geometry import AxialView, crop_to, onto_grid
from CTLungScreeningLib.hu import AIR_HU, DENSE_HU
from LungNoduleSegLib.network.patches import TrainingScan, training_scan
from LungNoduleSegLib.network.transplants import NoduleCube, read_cubes

LIDC_1, LIDC_12 = "LIDC-IDRI-0001", "LIDC-IDRI-0012.nii.gz"
CMB = "CMB-CRC-MSB-01068.nrrd"
OUTLINED = {
    LIDC_12: "LIDC-IDRI-0012_nodules_ge2of4readers.nrrd",
    LIDC_1: "LIDC-IDRI-0001_nodules_ge2of4readers.nrrd",
}
"""Scans whose nodules radiologists outlined, and the files with the outlines."""

PLACES = {
    CMB: (
        ((96, -2, -109), 26.0),
        ((-66, -20, -200), 8.7),
        ((34, -76, -156), 6.5),
        ((61, -33, -149), 5.6),
        ((90, 13, -60), 5.0),
        ((86, 16, -39), 5.0),
        ((-99, -50, -164), 4.5),
    )
}
"""Place (LPS mm) and diameter of the nodules that we saw in a scan that nobody outlined."""

OTHERS = (
    "ACRIN-FLT-Breast_001_headchest.nrrd",
    "ACRIN-FLT-Breast_001_abdopelvis.nrrd",
    "C3L-00189_upperabdomen.nii.gz",
)
"""Scans in which nobody outlined a nodule, and in which we see none."""

SERIES = {
    LIDC_12: "1.3.6.1.4.1.14519.5.2.1.6279.6001.328789598898469177563438457842",
    LIDC_1: "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192",
}
"""SeriesInstanceUID of these scans in LUNA16."""

LUNA_EXCLUDED = "luna16/annotations_excluded.csv"
"""What LUNA16 leaves out: findings of fewer readers, smaller ones, and what is no nodule."""

DOUBTFUL = {
    CMB: ((50, 9, -204), (73, -17, -196), (-93, -43, -122), (93, 68, -203), (92, 50, -129)),
}
"""Places (LPS mm) that may be nodules: taught neither as such nor as mistakes."""

DOUBTFUL_MM = 8.0
"""Distance from these places, and from those of `LUNA_EXCLUDED`, that belongs to them."""

CUBES = "lidc_nodules"
FOLDS = 5
"""Parts that the patients of the cubes are divided into."""

STEP_HU, LOWEST_HU = 8, -1024
MASKS = ("nodules", "doubtful")

AROUND_MM = 12.0
"""Beyond the lungs, this much is kept in a pack; the networks see next to nothing of it."""


@dataclass(frozen=True)
class TrainingSet:
    """The training data of the bundled model.

    Attributes:
        scans: by name; `OUTLINED` and `PLACES` have nodules.
        cubes: real nodules of other patients.
        patients: of each cube, whose it is.
    """

    scans: dict[str, TrainingScan]
    cubes: tuple[NoduleCube, ...]
    patients: tuple[str, ...]

    def split(self, *folds: int) -> tuple[list[NoduleCube], list[NoduleCube]]:
        """Part the cubes into those to learn from and those of some fifths of the patients."""
        names = sorted(set(self.patients))
        out = {name for number, name in enumerate(names) if number % FOLDS in folds}
        pairs = list(zip(self.cubes, self.patients, strict=True))
        return [c for c, p in pairs if p not in out], [c for c, p in pairs if p in out]


def fold_of(left_out: str) -> int:
    """Number the fifth of the nodules' patients that is left out together with a scan."""
    return list(OUTLINED).index(left_out)


def read_training_set(data: Path) -> TrainingSet:
    """Read and segment the scans of the shared data, with the nodules outlined in them."""
    scans = {name: _read_scan(data, name) for name in (*OUTLINED, *PLACES, *OTHERS)}
    seen = {LIDC_1, LIDC_12.split(".", maxsplit=1)[0]}
    cubes = [one for one in read_cubes(data / CUBES) if patient_of(one) not in seen]
    return TrainingSet(scans, tuple(cubes), tuple(map(patient_of, cubes)))


def patient_of(cube: NoduleCube) -> str:
    """Return the patient that a cube of LIDC-IDRI is of, from its name."""
    return cube.name.split("_")[0]


def write_pack(training: TrainingSet, file: Path) -> None:
    """Write a training set into one new file."""
    index: dict[str, Any] = {"scans": [], "cubes": []}
    with new_file(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as pack:
        for name, scan in training.scans.items():
            lungs = sitk.GetArrayFromImage(scan.lungs)
            spacing = scan.hu.GetSpacing()
            near = ndimage.distance_transform_edt(lungs == 0, spacing[::-1]) <= AROUND_MM
            hu = np.where(near, sitk.GetArrayViewFromImage(scan.hu), AIR_HU)
            _store(pack, f"{name}/hu", _in_steps(hu))
            _store(pack, f"{name}/lungs", lungs)
            for kind in MASKS:
                mask = getattr(scan, kind)
                if mask is not None:
                    _store(pack, f"{name}/{kind}", sitk.GetArrayFromImage(mask))
            index["scans"].append(
                {
                    "name": name,
                    "spacing": spacing,
                    "origin": scan.hu.GetOrigin(),
                    "direction": scan.hu.GetDirection(),
                    "masks": [kind for kind in MASKS if getattr(scan, kind) is not None],
                }
            )
        for number, (cube, patient) in enumerate(
            zip(training.cubes, training.patients, strict=True)
        ):
            _store(pack, f"cube/{number}/hu", _in_steps(cube.hu))
            _store(pack, f"cube/{number}/mask", cube.mask)
            index["cubes"].append({"name": cube.name, "patient": patient, "spacing": cube.spacing})
        pack.writestr("index.json", json.dumps(index))


def read_pack(file: Path) -> TrainingSet:
    """Read what `write_pack` wrote."""
    with zipfile.ZipFile(file) as pack:
        index = json.loads(pack.read("index.json"))
        scans = {}
        for entry in index["scans"]:
            name = entry["name"]
            hu = _image(_from_steps(_load(pack, f"{name}/hu")), entry)
            lungs = _image(_load(pack, f"{name}/lungs"), entry)
            masks = {m: _image(_load(pack, f"{name}/{m}"), entry) for m in entry["masks"]}
            scans[name] = training_scan(name, hu, lungs, **masks)
        cubes = tuple(
            NoduleCube(
                entry["name"],
                _from_steps(_load(pack, f"cube/{number}/hu")),
                _load(pack, f"cube/{number}/mask"),
                tuple(entry["spacing"]),
            )
            for number, entry in enumerate(index["cubes"])
        )
    return TrainingSet(scans, cubes, tuple(entry["patient"] for entry in index["cubes"]))


def distance_to(grid: sitk.Image, *places: tuple[float, float, float]) -> sitk.Image:
    """Distance in mm of each voxel of a grid from the nearest of places (LPS mm) within it."""
    points = sitk.Image(grid.GetSize(), sitk.sitkUInt8)
    points.CopyInformation(grid)
    indices = np.array([grid.TransformPhysicalPointToIndex(place) for place in places])
    for index in indices[((indices >= 0) & (indices < grid.GetSize())).all(axis=1)].tolist():
        points[index] = 1
    return sitk.SignedMaurerDistanceMap(points, squaredDistance=False, useImageSpacing=True)


def _read_scan(data: Path, name: str) -> TrainingScan:
    from CTLungScreeningLib.reading.ct_reading import read_ct  # noqa: PLC0415 - not with a pack
    from LungNoduleSegLib.lungs.segmentation import segment_lungs  # noqa: PLC0415

    view = AxialView.of(read_ct(data / name).image, AIR_HU)
    lungs, hu = crop_to(segment_lungs(view.image), view.image)
    nodules = None
    if name in PLACES:
        nodules = _mark_nodules(hu, lungs, name)
    elif name in OUTLINED:
        outlines = sitk.ReadImage(data / OUTLINED[name])
        nodules = onto_grid(outlines, hu)
        nodules = sitk.Cast(nodules, sitk.sitkUInt8)
    return training_scan(name, hu, lungs, nodules, doubtful=_mark_doubtful(data, hu, name))


def _mark_doubtful(data: Path, hu: sitk.Image, name: str) -> sitk.Image | None:
    """Mark the surroundings of what may be a nodule; None where nothing is known of a scan."""
    from LungNoduleSegLib.evaluation.luna_files import read_findings  # noqa: PLC0415

    places = list(DOUBTFUL.get(name, ()))
    if name in SERIES:
        places += read_findings(data / LUNA_EXCLUDED, [SERIES[name]]).position.tolist()
    if not places:
        return None
    return distance_to(hu, *places) <= DOUBTFUL_MM


def _mark_nodules(hu: sitk.Image, lungs: sitk.Image, name: str) -> sitk.Image:
    """Mark nodules by their place and diameter: what is dense around the place."""
    dense = (hu > DENSE_HU) & (lungs > 0)
    marked = sitk.Image(hu.GetSize(), sitk.sitkUInt8)
    marked.CopyInformation(hu)
    for place, diameter in PLACES[name]:
        near = dense & (distance_to(hu, place) < 0.7 * diameter)
        marked |= sitk.ConnectedThreshold(
            sitk.Cast(near, sitk.sitkUInt8), [hu.TransformPhysicalPointToIndex(place)], 1, 1
        )
    return marked


def _in_steps(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    return np.clip((hu - LOWEST_HU + STEP_HU // 2) // STEP_HU, 0, 255).astype(np.uint8)


def _from_steps(steps: NDArray[np.uint8]) -> NDArray[np.int16]:
    return steps.astype(np.int16) * np.int16(STEP_HU) + np.int16(LOWEST_HU)


def _store(pack: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    pack.writestr(f"{name}.npy", stream.getvalue())


def _load(pack: zipfile.ZipFile, name: str) -> NDArray[Any]:
    return np.load(io.BytesIO(pack.read(f"{name}.npy")), allow_pickle=False)


def _image(array: NDArray[Any], entry: dict[str, Any]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(entry["spacing"])
    image.SetOrigin(entry["origin"])
    image.SetDirection(entry["direction"])
    return image
