"""Read the results of a run back from its files."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CTLungScreeningLib.child_process import complete
from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.files import (
    changed_since,
    new_file,
    refuse_existing,
    replace_text,
    require_unpacked,
)
from CTLungScreeningLib.geometry import CroppedMask, Grid, grid_difference, ijk_to_lps, image_like
from CTLungScreeningLib.json_files import json_text, parse_json
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import IndexedScan, has_slices, read_again, read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.volume_files import (
    VOLUME_SUFFIXES,
    raw_nrrd_work,
    read_labels,
    volume_parts,
    volume_sha256,
    volume_size,
)
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.nodules.table import MOST_NODULES, Nodule, read_nodules_csv
from LungNoduleSegLib.risk.assessment import ScanRisk, assess_scan, parse_scan_risk
from LungNoduleSegLib.risk.clinical_data import ClinicalData, parse_facts

LUNGS = "lungs.nii.gz"
NODULES = "nodules.nii.gz"
TABLE = "nodules.csv"
SEGMENTATION = "segmentation.seg.nrrd"
REPORT = "report.html"
RECORD = "run.json"
SCENE = "scene.mrb"
PROBABILITY = "probability.nrrd"
MASKS = "masks.npz"
"""Lungs and nodules once more, as Slicer reads them at once; see `reading.RunMasks`."""

SCAN = "scan.nrrd"
"""The scan itself, where a run is handed from or to Slicer."""

DICOM_SEGMENTATION = "segmentation.dcm"
DICOM_REPORT = "measurements.dcm"
DICOM_KEY_IMAGES = "key-images.dcm"

GROWTH_TABLE = "growth.csv"
TIMELINE_TABLE = "timeline.csv"
GROWTH_PAGE = "growth.html"
"""Files of a comparison of runs."""

DICOM_NAMES = (DICOM_SEGMENTATION, DICOM_REPORT)
"""Always written; `DICOM_KEY_IMAGES` only with nodules."""


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files that were written into a folder."""
    files = (folder / name for name in (*DICOM_NAMES, DICOM_KEY_IMAGES))
    return [file for file in files if file.exists()]


def result_names(
    scene: bool, dicom: bool = False, probability: bool = False, masks: bool = False
) -> list[str]:
    """Names of all files of a run with these options."""
    files = [LUNGS, NODULES, TABLE, SEGMENTATION, REPORT, RECORD]
    chosen = [*[SCENE] * scene, *DICOM_NAMES * dicom, *[PROBABILITY] * probability]
    return [*files, *chosen, *[MASKS] * masks]


SHA256 = "sha256"
"""Key in the record's input: `volume_sha256` of a volume file."""

RISK = "risk"
"""Key in the record of a run that Slicer wrote: `ScanRisk.to_dict`."""

CLINICAL_DATA = "clinical_data"
"""Key of `ClinicalData.to_dict` among the parameters in the record of a run."""


@dataclass(frozen=True)
class RunResult:
    """The results of a run with its scan.

    Attributes:
        folder: of the run.
        scan: read again from its source.
        lungs: 1 right, 2 left, on the scan's grid.
        labels: ids of the nodules on the same grid.
        nodules: the rows of the table.
        record: the content of `run.json`.
    """

    folder: Path
    scan: CTScan
    lungs: sitk.Image
    labels: sitk.Image
    nodules: tuple[Nodule, ...]
    record: dict[str, Any]


def is_run(folder: Path) -> bool:
    """Whether a folder has the results of a run."""
    return (folder / RECORD).is_file()


def is_run_on(folder: Path, scan: CTScan) -> bool:
    """Whether a folder has the results of a run on a scan.

    Raises:
        InputError: if its record is damaged.
    """
    if not is_run(folder):
        return False
    _, source, uid = _record(folder / RECORD)
    return (uid or source.resolve()) == identity(scan)


def identity(scan: CTScan) -> str | Path:
    """The SeriesInstanceUID of a scan, or else its file."""
    uid = scan.series.series_instance_uid if scan.series else ""
    return uid or scan.source.resolve()


def has_its_files(folder: Path, scan: Path | IndexedScan, series: str | None = None) -> bool:
    """Whether a scan still has the files that a run was made of, as far as the run recorded them.

    Args:
        folder: of the run.
        scan: what was run, see `NoduleSegmenter.run`.
        series: as it was then.

    Raises:
        InputError: if the scan or the record cannot be read.
    """
    record = read_record(folder / RECORD)
    instances, about = instances_of(record), record["input"]
    if isinstance(scan, IndexedScan):
        return not instances or has_slices(scan, instances)
    is_volume = scan.name.lower().endswith(VOLUME_SUFFIXES)
    parent = scan if scan.is_dir() else scan.parent
    files = volume_parts(scan) if is_volume else [parent, *parent.rglob("*")]
    if not changed_since(folder / RECORD, files):  # or else many are read at each start of a batch
        return True
    if not is_volume:
        return not instances or has_slices(scan, instances, series)
    if about.get(SHA256):
        return bool(about[SHA256] == volume_sha256(scan))
    return bool(about.get("size") == list(volume_size(scan)))


def read_run(folder: Path, progress: ProgressCallback = silent) -> RunResult:
    """Read masks and table of a run, and its scan.

    Raises:
        InputError: naming the file that is missing, damaged or does not match the others.
    """
    record, source, uid = _record(folder / RECORD)
    if not source.exists():
        raise InputError(
            f"{folder / RECORD} was made from the scan {source}, which is no longer there: put it "
            "back, or run the scan again."
        )
    if uid and (instances := instances_of(record)):
        patient = record["input"]["series"].get("patient_id") or ""
        scan = read_again(source, uid, patient, instances, progress)
    else:
        scan = read_ct(source, uid if source.is_dir() else None, progress)
    if (folder / MASKS).exists() and not (folder / LUNGS).exists():
        lungs, labels = RunMasks.read(folder / MASKS).images(scan.image, str(source))
        labels, nodules = _listed(labels, folder, MASKS)
    else:
        lungs, labels, nodules = read_findings(folder)
    for name, image in ((LUNGS, lungs), (NODULES, labels)):
        if grid_difference(image, scan.image):
            raise InputError(
                f"{folder / name} does not match the scan {source}: run the scan again."
            )
    return RunResult(folder, scan, lungs, labels, nodules, record)


def read_findings(folder: Path) -> tuple[sitk.Image, sitk.Image, tuple[Nodule, ...]]:
    """Read lungs, labels of the nodules and their table, and check that they belong together.

    A nodule without a row was rejected: its voxels are background.

    Returns:
        Lungs (1 right, 2 left) and nodules on one grid, as whole numbers, and the table.

    Raises:
        InputError: naming the file that is missing, damaged or does not fit the others.
    """
    lungs, labels = _labels(folder / LUNGS), _labels(folder / NODULES)
    if grid_difference(lungs, labels):
        raise InputError(
            f"{folder / LUNGS} and {folder / NODULES} lie on different grids: run the scan again."
        )
    return lungs, *_listed(labels, folder, NODULES)


def _numbers(labels: sitk.Image) -> set[int]:
    array = sitk.GetArrayViewFromImage(labels)
    return set(np.unique(array[array != 0]).tolist())  # to sort all voxels is slow


def _listed(labels: sitk.Image, folder: Path, name: str) -> tuple[sitk.Image, tuple[Nodule, ...]]:
    """Read the table of a run, and set the voxels of nodules without a row to 0.

    Args:
        labels: of the nodules.
        folder: of the run.
        name: of the file in it that holds them.

    Raises:
        InputError: naming both files, if a row has no voxels, or the table is damaged.
    """
    nodules = read_nodules_csv(folder / TABLE)
    there = _numbers(labels)
    if lost := [str(one.id) for one in nodules if one.id not in there]:
        raise InputError(
            f"{folder / TABLE} names the nodules {', '.join(lost[:5])}, which {folder / name} "
            "does not show: run the scan again."
        )
    if lost := [str(one.id) for one in nodules if one.slice >= labels.GetDepth()]:
        raise InputError(
            f"{folder / TABLE} has nodule {lost[0]} on a slice that {folder / name} does not "
            "have: run the scan again."
        )
    rejected = there - {one.id for one in nodules}
    return sitk.ChangeLabel(labels, dict.fromkeys(rejected, 0)) if rejected else labels, nodules


_SCAN = "scan"


@dataclass(frozen=True)
class RunMasks:
    """Lungs and nodules cropped to their voxels, fast to write and read, on any grid.

    Attributes:
        grid: of the scan.
        lungs: by label, 1 right and 2 left.
        nodules: by number.
        lobes: by label, see `LOBES`; none if they are not known.
    """

    grid: Grid
    lungs: Mapping[int, CroppedMask]
    nodules: Mapping[int, CroppedMask]
    lobes: Mapping[int, CroppedMask] = field(default_factory=dict)

    @classmethod
    def of(
        cls, lungs: sitk.Image, labels: sitk.Image, lobes: sitk.Image | None = None
    ) -> "RunMasks":
        """Crop label images to their labels."""
        images = [lungs, labels, *([] if lobes is None else [lobes])]
        return cls(Grid.of(lungs), *(dict(_cropped(image)) for image in images))

    def write(self, file: Path) -> None:
        """Write a new file, `MASKS`, for `read`.

        Raises:
            InputError: if it exists.
        """
        grids: dict[str, Any] = {_SCAN: asdict(self.grid)}
        bits: dict[str, Any] = {}
        kinds = {"lung": self.lungs, "nodule": self.nodules, "lobe": self.lobes}
        for kind, masks in kinds.items():
            for number, mask in masks.items():
                name = f"{kind} {number}"
                bits[name] = np.packbits(mask.voxels)
                start = [part.start for part in mask.box[::-1]]
                grids[name] = {
                    "origin": mask.grid.first_voxel.TransformIndexToPhysicalPoint(start),
                    "spacing": mask.grid.spacing,
                    "direction": mask.grid.direction,
                    "size": mask.voxels.shape[::-1],
                }
        with new_file(file) as temporary:
            np.savez(temporary, grids=np.array(json.dumps(grids)), **bits)

    @classmethod
    def read(cls, file: Path) -> "RunMasks":
        """Read a file of `write`.

        Raises:
            InputError: if the file is missing or damaged.
        """
        found: dict[str, dict[int, CroppedMask]] = {"lung": {}, "nodule": {}, "lobe": {}}
        try:
            require_unpacked(file)
            with np.load(file) as stored:
                grids = {
                    name: Grid(**{key: tuple(values) for key, values in about.items()})
                    for name, about in json.loads(str(stored["grids"])).items()
                }
                scan = grids.pop(_SCAN)
                for name, grid in grids.items():
                    count = math.prod(grid.size)
                    bits = stored[name]
                    if len(bits) != -(-count // 8):
                        raise ValueError(f"{name} is cut short")
                    voxels = np.unpackbits(bits, count=count).view(bool).reshape(grid.size[::-1])
                    z, y, x = (slice(0, size) for size in voxels.shape)
                    kind, number = name.split()
                    found[kind][int(number)] = CroppedMask(grid, (z, y, x), voxels)
        except DAMAGE as error:
            raise InputError(f"{file} is missing or damaged: run the scan again.") from error
        return cls(scan, found["lung"], found["nodule"], found["lobe"])

    def images(self, grid: sitk.Image, name: str) -> tuple[sitk.Image, sitk.Image]:
        """Return lungs (uint8) and nodules (uint16) as label images on the grid of a scan.

        Raises:
            InputError: naming the scan, if they do not lie on its voxels.
        """
        to, size = Grid.of(grid), grid.GetSize()[::-1]
        images = []
        for masks, kind in ((self.lungs, np.uint8), (self.nodules, np.uint16)):
            labels = np.zeros(size, kind)
            for number, mask in sorted(masks.items()):
                here = mask.on(to) if mask.grid.shares_voxels(to) else None
                if here is None or here.voxels.sum() != mask.voxels.sum():
                    raise InputError(
                        f"{name} does not lie where its lungs and nodules lie: take it out of its "
                        "transform, load it again, and run it again."
                    )
                labels[here.box][here.voxels] = number
            images.append(image_like(labels, grid))
        return images[0], images[1]


def _cropped(labels: sitk.Image) -> Iterator[tuple[int, CroppedMask]]:
    array = sitk.GetArrayViewFromImage(labels)
    for label, box in enumerate(ndimage.find_objects(array), start=1):
        if box is not None:
            yield label, CroppedMask(Grid.of(labels), box, array[box] == label)


def risk_of(run: RunResult) -> ScanRisk:
    """Return the risk that Slicer recorded with the run, or compute it from its clinical data.

    Raises:
        InputError: if the record cannot be used.
    """
    record = run.folder / RECORD
    try:
        if RISK in run.record:
            return parse_scan_risk(run.record[RISK], str(record))
    except DAMAGE as error:
        raise _no_record(record) from error
    data = recorded_facts(run.record, record)
    return ScanRisk(data.patient, assess_scan(run.nodules, run.lungs, data))


def recorded_facts(record: Mapping[str, Any], file: Path) -> ClinicalData:
    """Return the clinical data in the record of a run.

    Raises:
        InputError: naming the file of the record, if they cannot be used.
    """
    try:
        return parse_facts(record["parameters"].get(CLINICAL_DATA, {}), str(file))
    except DAMAGE as error:
        raise _no_record(file) from error


def unpack_run(
    folder: Path, output: Path, progress: ProgressCallback = silent
) -> tuple[str, list[str]]:
    """Write scan and results of a run into a new folder in formats that Slicer loads fast.

    All files appear, or none if anything fails.

    Args:
        folder: of the run.
        output: gets `SCAN`, `MASKS`, the table, the record and the probability, if available.
        progress: of the reading.

    Returns:
        The name of the scan, and the SOP Instance UIDs of its slices along k.

    Raises:
        InputError: as `read_run`, or if one of the files exists.
    """
    with whole_output(output) as whole:
        refuse_existing(output, (SCAN, MASKS, TABLE, RECORD, PROBABILITY))
        run = read_run(folder, progress)
        image = run.scan.image
        voxels = sitk.GetArrayViewFromImage(image)
        complete(raw_nrrd_work(voxels, ijk_to_lps(image), whole / SCAN))
        RunMasks.of(run.lungs, run.labels).write(whole / MASKS)
        for name in (TABLE, RECORD, PROBABILITY):
            if (folder / name).exists():
                shutil.copyfile(folder / name, whole / name)
    series = run.scan.series
    title = series.description if series else ""
    return title or run.scan.source.name, [one.sop_instance_uid for one in run.scan.slices]


def _record(file: Path) -> tuple[dict[str, Any], Path, str | None]:
    """The record of a run, the path of its scan, and its SeriesInstanceUID."""
    record = read_record(file)
    try:
        series = record["input"]["series"]
        uid = series["series_instance_uid"] if series else None
        return record, Path(record["input"]["source"]), uid
    except DAMAGE as error:
        raise _no_record(file) from error


def instances_of(record: Mapping[str, Any]) -> list[str]:
    """Return the SOP Instance UIDs of the slices of a run; none for a volume file."""
    return list(record["input"].get("sop_instance_uids") or ())


def read_record(file: Path) -> dict[str, Any]:
    """Read the record of a run and check the types of what is used of it.

    Raises:
        InputError: if it is not one.
    """
    try:
        record = parse_json(file.read_bytes())
        series = record["input"]["series"] or {}
        model, parameters = (record.get(name) or {} for name in ("model", "parameters"))
        objects = (record["input"], series, model, parameters, parameters.get("rules") or {})
        texts = (record["input"].get("name", ""), *series.values(), *instances_of(record))
    except DAMAGE as error:
        raise _no_record(file) from error
    if not all(isinstance(one, dict) for one in objects) or not all(
        one is None or isinstance(one, str) for one in texts
    ):
        raise _no_record(file)
    return dict(record)


def replace_source(folder: Path, source: Path) -> None:
    """Record where the scan of a run lies now.

    Raises:
        InputError: if the record cannot be read or replaced.
    """
    record = read_record(folder / RECORD)
    about = record["input"] | {"source": str(source.resolve())}
    replace_text(folder / RECORD, json_text(record | {"input": about}))


def _no_record(file: Path) -> InputError:
    return InputError(f"{file} is not the record of a run: run the scan again.")


def _labels(file: Path) -> sitk.Image:
    try:
        labels = read_labels(file)
    except InputError as error:
        raise InputError(f"{file} is missing or damaged: run the scan again.") from error
    array = sitk.GetArrayViewFromImage(labels)
    if array.dtype.kind in "iu" and array.min() >= 0:
        return labels
    if not ((array >= 0) & (array < MOST_NODULES) & (array == np.rint(array))).all():
        raise InputError(f"{file} holds values that are not labels: run the scan again.")
    return sitk.Cast(labels, sitk.sitkUInt16)
