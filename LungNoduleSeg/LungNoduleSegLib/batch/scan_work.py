"""The work on one scan of a batch, and its row in the table of results."""

import csv
import io
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.files import make_folders, parse_json, refuse_links, replace_text
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.volume_files import read_labels
from LungNoduleSegLib.batch.cases import Case
from LungNoduleSegLib.default_model import DEFAULT_MODEL
from LungNoduleSegLib.lungs.labels import lung_volumes_ml
from LungNoduleSegLib.lungs.segmentation import LungMethod
from LungNoduleSegLib.nodules.table import Nodule, read_nodules_csv
from LungNoduleSegLib.results.reading import LUNGS, RECORD, TABLE, is_run
from LungNoduleSegLib.risk.assessment import assess_scan
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData, read_facts
from LungNoduleSegLib.risk.lung_rads import class_examination

RESULTS_TABLE = "results.csv"


@dataclass(frozen=True)
class ScanRow:
    """What the table says of one scan; None and "" are empty cells.

    Attributes:
        scan: its name, see `Case`.
        source: folder or file it was read from.
        results: folder of its results, relative to that of the table.
        patient_id: from DICOM, as are the next three.
        study_instance_uid: see `patient_id`.
        series_instance_uid: see `patient_id`.
        study_date: YYYYMMDD.
        nodules: how many were found.
        largest_diameter_mm: longest axial diameter of any.
        largest_volume_mm3: volume of the largest.
        total_volume_mm3: of all nodules.
        right_lung_ml: volume of the patient's right lung.
        left_lung_ml: volume of the left one.
        pancan_1a: probability of cancer of the nodule with the largest volume, where the facts that
            the model asks for are there; as are those of the next six models.
        pancan_1b: see `pancan_1a`.
        pancan_2a: see `pancan_1a`.
        pancan_2b: see `pancan_1a`.
        mayo: see `pancan_1a`.
        herder: see `pancan_1a`.
        va: see `pancan_1a`.
        lung_rads: its Lung-RADS category.
        fleischner: its class in the Fleischner guideline.
        bts: likewise of the BTS.
        nelson: likewise of the NELSON trial.
        examination: the Lung-RADS category of the examination.
        seconds: that the run took.
        error: a sentence if there is no result.
    """

    scan: str
    source: str
    results: str = ""
    patient_id: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    study_date: str = ""
    nodules: int | None = None
    largest_diameter_mm: float | None = None
    largest_volume_mm3: float | None = None
    total_volume_mm3: float | None = None
    right_lung_ml: float | None = None
    left_lung_ml: float | None = None
    pancan_1a: float | None = None
    pancan_1b: float | None = None
    pancan_2a: float | None = None
    pancan_2b: float | None = None
    mayo: float | None = None
    herder: float | None = None
    va: float | None = None
    lung_rads: str = ""
    fleischner: str = ""
    bts: str = ""
    nelson: str = ""
    examination: str = ""
    seconds: float | None = None
    error: str = ""

    def cells(self) -> dict[str, str]:
        """Its cells by column; numbers to six digits."""
        return {name: _text(value) for name, value in asdict(self).items()}


COLUMNS = [field.name for field in fields(ScanRow)]


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Read the rows that a batch wrote, by the names of their scans; none if there is no file.

    Raises:
        InputError: if it is something else.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            if reader.fieldnames != COLUMNS:
                raise InputError(
                    f"{path} is no table of a batch or one of another version: choose another "
                    "folder for the output, nothing was overwritten."
                )
            rows = [{k: csv_files.unguarded(v or "") for k, v in row.items()} for row in reader]
            return {row["scan"]: row for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read ({error}): choose another folder for the output."
        ) from error


def write_table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Put the table in the place of its earlier version in one step.

    Raises:
        InputError: if it cannot be written.
    """
    text = io.StringIO()
    writer = csv_files.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_MODEL_COLUMNS = ("pancan_1a", "pancan_1b", "pancan_2a", "pancan_2b", "mayo", "herder", "va")
_GUIDELINE_COLUMNS = ("lung_rads", "fleischner", "bts", "nelson")


@dataclass(frozen=True)
class RunOptions:
    """How every scan of a batch is run; `model_file` None is the bundled model."""

    method: LungMethod = LungMethod.VOLUME
    model_file: Path | None = None
    rules: Mapping[str, Any] = field(default_factory=dict)
    device: Device | None = None


BUNDLED = RunOptions()


@dataclass(frozen=True)
class Job:
    """One scan and where its results go.

    Attributes:
        case: the scan.
        folder: for its results, in the folder of the batch; made at once, when they are complete.
        batch: folder of the batch.
        staging: folder where results may be incomplete.
        options: of the run.
    """

    case: Case
    folder: Path
    batch: Path
    staging: Path
    options: RunOptions


def run_job(job: Job, progress: ProgressCallback = silent) -> ScanRow:
    """Run one scan, unless its results are there, and give its row; a failure is a row too."""
    try:
        facts = job.case.facts
        given = read_facts(facts) if facts else NO_CLINICAL_DATA
        refuse_links(job.folder)
        if not is_run(job.folder):
            _run(job, given, progress)
        return _row(job, given)
    except InputError as error:
        return failed(job, str(error))
    except MemoryError:
        return failed(job, out_of_memory(job))
    except Cancelled:
        raise
    except Exception as error:  # whatever is wrong with one scan, the others go on
        return failed(job, f"{job.case.place}: {type(error).__name__}: {error}")


def failed(job: Job, sentence: str) -> ScanRow:
    """Give the row of a scan without result."""
    one_line = " ".join(sentence.split())
    return ScanRow(job.case.name, str(job.case.place), error=one_line)


def out_of_memory(job: Job) -> str:
    """Say that a scan needs more memory than its worker has."""
    return (
        f"{job.case.place} needs more memory than a worker has, or ends it in some other way: run "
        "it again with --workers 1."
    )


def _run(job: Job, given: ClinicalData, progress: ProgressCallback) -> None:
    from LungNoduleSegLib.segmenter import NoduleSegmenter  # noqa: PLC0415 - slow to import

    case, options = job.case, job.options
    segmenter = NoduleSegmenter(
        options.model_file or DEFAULT_MODEL,
        options.method,
        rules=options.rules,
        device=options.device,
    )
    with tempfile.TemporaryDirectory(dir=job.staging, ignore_cleanup_errors=True) as working:
        results = Path(working) / "results"
        segmenter.run(
            case.source, results, series=case.series, clinical_data=given, progress=progress
        )
        make_folders(job.batch, job.folder.parent)
        try:
            results.rename(job.folder)
        except OSError as error:
            raise InputError(
                f"{job.folder} cannot be written ({error.strerror}): move the existing folder away."
            ) from error


def _row(job: Job, given: ClinicalData) -> ScanRow:
    """Take the row from the files of a run."""
    record = _record(job.folder / RECORD)
    nodules = read_nodules_csv(job.folder / TABLE)
    lungs = read_labels(job.folder / LUNGS)
    volumes = [nodule.volume_mm3 for nodule in nodules]
    lung_ml = lung_volumes_ml(lungs)
    series = record["input"]["series"] or {}
    identifiers = ("patient_id", "study_instance_uid", "series_instance_uid", "study_date")
    return ScanRow(
        job.case.name,
        str(job.case.place),
        job.folder.relative_to(job.batch).as_posix(),
        nodules=len(nodules),
        largest_diameter_mm=max((one.diameter_mm for one in nodules), default=None),
        largest_volume_mm3=max(volumes, default=None),
        total_volume_mm3=float(sum(volumes)),
        right_lung_ml=lung_ml["right"],
        left_lung_ml=lung_ml["left"],
        seconds=float(sum(record["timing_s"].values())),
        **{name: series.get(name, "") for name in identifiers},
        **_risk(nodules, lungs, given, job),
    )


def _record(file: Path) -> dict[str, Any]:
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no record of a run: move its folder away.") from error


def _risk(
    nodules: tuple[Nodule, ...], lungs: sitk.Image, given: ClinicalData, job: Job
) -> dict[str, Any]:
    """What the published models and guidelines say of the nodule with the largest volume."""
    if not nodules:
        return {"examination": class_examination([], given.patient).category}
    largest = max(nodules, key=lambda one: one.volume_mm3).id
    assessed = assess_scan(nodules, lungs, given, where=str(job.case.place))
    found = next(one for one in assessed if one.nodule.id == largest)
    probabilities = (result.probability for result in found.models)
    categories = (result.category for result in found.guidelines)
    examination = class_examination([one.guidelines[0] for one in assessed], given.patient)
    return (
        dict(zip(_MODEL_COLUMNS, probabilities, strict=True))
        | dict(zip(_GUIDELINE_COLUMNS, categories, strict=True))
        | {"examination": examination.category}
    )
