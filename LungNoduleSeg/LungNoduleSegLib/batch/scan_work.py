"""The work on one scan of a batch, and its row in the table of results."""

import csv
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import Cancelled, InputError, sentence_of
from CTLungScreeningLib.files import make_folders, refuse_links, replace_text
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.batch.cases import Case
from LungNoduleSegLib.lungs.labels import lung_volumes_ml
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.options import RunOptions
from LungNoduleSegLib.results.reading import (
    RECORD,
    has_its_files,
    instances_of,
    is_run,
    read_findings,
    read_record,
    recorded_facts,
    replace_source,
)
from LungNoduleSegLib.risk.assessment import assess_scan
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData, read_facts
from LungNoduleSegLib.risk.lung_rads import classify_examination

RESULTS_TABLE = "results.csv"


@dataclass(frozen=True)
class ScanRow:
    """One scan in the table of results; None and "" are empty cells.

    Attributes:
        scan: its name, see `Case`.
        source: folder or file it was read from.
        results: folder of its results, relative to the table.
        patient_id: from DICOM, as are the next three.
        study_instance_uid: see `patient_id`.
        series_instance_uid: see `patient_id`.
        study_date: YYYYMMDD.
        nodules: number of nodules.
        largest_diameter_mm: longest axial diameter of any nodule.
        largest_volume_mm3: volume of the largest nodule.
        total_volume_mm3: of all nodules.
        right_lung_ml: volume of the right lung.
        left_lung_ml: volume of the left lung.
        pancan_1a: probability of cancer for the nodule with the largest volume, if all facts are
            known; likewise for the next six models.
        pancan_1b: see `pancan_1a`.
        pancan_2a: see `pancan_1a`.
        pancan_2b: see `pancan_1a`.
        mayo: see `pancan_1a`.
        herder: see `pancan_1a`.
        va: see `pancan_1a`.
        lung_rads: its Lung-RADS category.
        fleischner: its category by the Fleischner guideline.
        bts: likewise by the BTS guideline.
        nelson: likewise by the NELSON trial.
        examination: the Lung-RADS category of the examination.
        seconds: duration of the run.
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
        """Its cells by column, numbers with six digits."""
        return {name: _text(value) for name, value in asdict(self).items()}


COLUMNS = [field.name for field in fields(ScanRow)]


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Read the rows that a batch wrote, by scan name; empty without a file.

    Raises:
        InputError: if it is not such a table.
    """
    if not path.exists():
        return {}
    try:
        with csv_files.open_table(path) as (header, lines):
            if header != COLUMNS:
                raise InputError(
                    f"{path} is not the table of a batch, or of another version: choose another "
                    "folder for the output; nothing was overwritten."
                )
            rows = [
                {name: csv_files.unguarded(cell) for name, cell in row.items()} for _, row in lines
            ]
            return {row["scan"]: row for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read ({error}): choose another folder for the output."
        ) from error


def write_table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Replace the table atomically.

    Raises:
        InputError: if it cannot be written.
    """
    cells = ([row[name] for name in COLUMNS] for row in rows)
    replace_text(path, csv_files.table_text(COLUMNS, cells, "\n"))


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_MODEL_COLUMNS = ("pancan_1a", "pancan_1b", "pancan_2a", "pancan_2b", "mayo", "herder", "va")
_GUIDELINE_COLUMNS = ("lung_rads", "fleischner", "bts", "nelson")


@dataclass(frozen=True)
class Job:
    """One scan and where its results go.

    Attributes:
        case: the scan.
        folder: for its results, in the folder of the batch; created when they are complete.
        batch: folder of the batch.
        staging: folder for incomplete results.
        options: of the run.
    """

    case: Case
    folder: Path
    batch: Path
    staging: Path
    options: RunOptions


def run_job(job: Job, progress: ProgressCallback = silent) -> ScanRow:
    """Run one scan, unless its results exist, and return its row, also after a failure.

    Existing results are given the place and the facts of the job; they are refused if their scan
    has other files now.
    """
    try:
        clinical_data = _facts(job.case)
        refuse_links(job.folder)
        if not is_run(job.folder):
            _run(job, clinical_data, progress)
        else:
            if not has_its_place(job):
                replace_source(job.folder, job.case.place)
            if not has_its_facts(job):
                from LungNoduleSegLib.results.writing import (  # noqa: PLC0415 - as in _run
                    replace_facts,
                )

                replace_facts(job.folder, clinical_data, progress)
        return _row(job, clinical_data)
    except MemoryError:
        return failed(job, out_of_memory(job))
    except Cancelled:
        raise
    except Exception as error:  # a problem of one scan must not stop the others
        return failed(job, sentence_of(error))


def has_its_place(job: Job) -> bool:
    """Whether existing results name the place where the files they were made of lie now.

    Raises:
        InputError: if the scan has other files now, or these or the record cannot be read.
    """
    case = job.case
    if not case.place.exists():  # as on a drive that is away
        return True
    if not has_its_files(job.folder, case.source, case.series):
        raise InputError(
            f"{case.place} has other files now than when it was run: delete {job.folder} to run it "
            "again."
        )
    record = read_record(job.folder / RECORD)
    return not instances_of(record) or record["input"]["source"] == str(case.place.resolve())


def has_its_facts(job: Job) -> bool:
    """Whether existing results were made with the facts that the job names now.

    Raises:
        InputError: if these facts or the record of the results cannot be read.
    """
    file = job.folder / RECORD
    return recorded_facts(read_record(file), file) == _facts(job.case)


def _facts(case: Case) -> ClinicalData:
    return read_facts(case.facts) if case.facts else NO_CLINICAL_DATA


def failed(job: Job, sentence: str) -> ScanRow:
    """Return the row of a scan without results."""
    one_line = " ".join(sentence.split())
    return ScanRow(job.case.name, str(job.case.place), error=one_line)


def out_of_memory(job: Job) -> str:
    """Return the error message for a scan that killed its worker."""
    return (
        f"{job.case.place} killed its worker, probably for lack of memory: run it again with "
        "--workers 1."
    )


def _run(job: Job, clinical_data: ClinicalData, progress: ProgressCallback) -> None:
    from LungNoduleSegLib.segmenter import NoduleSegmenter  # noqa: PLC0415 - slow to import

    case, segmenter = job.case, NoduleSegmenter.of(job.options)
    with tempfile.TemporaryDirectory(dir=job.staging, ignore_cleanup_errors=True) as working:
        results = Path(working) / "results"
        segmenter.run(
            case.source, results, series=case.series, clinical_data=clinical_data, progress=progress
        )
        make_folders(job.batch, job.folder.parent)
        try:
            results.rename(job.folder)
        except OSError as error:
            raise InputError(
                f"{job.folder} cannot be written ({error.strerror}): move the existing folder away."
            ) from error


def _row(job: Job, clinical_data: ClinicalData) -> ScanRow:
    """Make the row from the files of a run."""
    record = read_record(job.folder / RECORD)
    lungs, _, nodules = read_findings(job.folder)
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
        **_risk(nodules, lungs, clinical_data, job),
    )


def _risk(
    nodules: tuple[Nodule, ...], lungs: sitk.Image, clinical_data: ClinicalData, job: Job
) -> dict[str, Any]:
    """The results of models and guidelines for the nodule with the largest volume."""
    if not nodules:
        return {"examination": classify_examination([], clinical_data.patient).category}
    largest = max(nodules, key=lambda one: one.volume_mm3).id
    assessed = assess_scan(nodules, lungs, clinical_data, where=str(job.case.place))
    found = next(one for one in assessed if one.nodule.id == largest)
    probabilities = (result.probability for result in found.models)
    categories = (result.category for result in found.guidelines)
    examination = classify_examination(
        [one.guidelines[0] for one in assessed], clinical_data.patient
    )
    return (
        dict(zip(_MODEL_COLUMNS, probabilities, strict=True))
        | dict(zip(_GUIDELINE_COLUMNS, categories, strict=True))
        | {"examination": examination.category}
    )
