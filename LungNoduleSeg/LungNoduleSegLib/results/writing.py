"""Write the results of a run: as files, and as DICOM SEG and SR."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import SimpleITK as sitk
from pydicom import Dataset

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import (
    new_file,
    new_files,
    refuse_existing,
    replace_text,
    replaced_file,
)
from CTLungScreeningLib.json_files import json_text, write_object
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.dicom_headers import DAMAGED
from CTLungScreeningLib.reading.volume_files import write_image
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.nodules.table import Nodule, write_nodules_csv
from LungNoduleSegLib.nodules.threshold import to_steps
from LungNoduleSegLib.pipeline import Analysis, Timing
from LungNoduleSegLib.results.dicom_source import DicomSource, read_dicom_source
from LungNoduleSegLib.results.reading import (
    CLINICAL_DATA,
    DICOM_KEY_IMAGES,
    DICOM_NAMES,
    DICOM_REPORT,
    DICOM_SEGMENTATION,
    LUNGS,
    MASKS,
    NODULES,
    PROBABILITY,
    RECORD,
    REPORT,
    RISK,
    SCENE,
    SEGMENTATION,
    TABLE,
    RunMasks,
    RunResult,
    read_run,
    risk_of,
)
from LungNoduleSegLib.results.report import write_report, write_report_again
from LungNoduleSegLib.results.segments import write_segmentation
from LungNoduleSegLib.risk.assessment import ScanRisk, assess_scan
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep what highdicom and pydicom say off the terminal: it quotes names of patients.

    What is wrong with the series is in `DicomSource.notes`.
    """
    with warnings.catch_warnings(action="ignore"):
        yield


@_without_warnings()
def write_dicom(
    folder: Path,
    source: DicomSource,
    lungs: sitk.Image,
    labels: sitk.Image,
    nodules: Sequence[Nodule],
    record: Mapping[str, Any],
    risk: ScanRisk | None = None,
    labelmap: bool = False,
) -> None:
    """Write `segmentation.dcm`, `measurements.dcm` and `key-images.dcm` in the source's study.

    Key images are written only if there are nodules.

    Args:
        folder: made if missing.
        source: the series that was segmented.
        lungs: 1 right, 2 left, on the grid of the scan.
        labels: ids of the nodules on the same grid.
        nodules: those to write.
        record: the content of `run.json`.
        risk: results of models and guidelines for the report; None to leave them out.
        labelmap: see `make_segmentation`.

    Raises:
        InputError: if one of the files exists, or nodules, record or series cannot be used.
    """
    refuse_existing(folder, (*DICOM_NAMES, DICOM_KEY_IMAGES))
    from LungNoduleSegLib.results.dicom_report import make_key_images, make_report  # noqa: PLC0415
    from LungNoduleSegLib.results.dicom_segmentation import (  # noqa: PLC0415 - slow to import
        Algorithms,
        make_segmentation,
    )

    algorithms = Algorithms.of(record)
    segmentation = make_segmentation(source, lungs, labels, nodules, algorithms, labelmap)
    report = make_report(source, segmentation, lungs, nodules, algorithms, risk)
    files: dict[str, Dataset] = {DICOM_SEGMENTATION: segmentation, DICOM_REPORT: report}
    if nodules:
        files[DICOM_KEY_IMAGES] = make_key_images(source, nodules, algorithms)
    with new_files(*(folder / name for name in files)) as temporaries:
        for temporary, made in zip(temporaries.values(), files.values(), strict=True):
            made.save_as(temporary)


def write_dicom_of_run(
    folder: Path,
    output: Path | None = None,
    progress: ProgressCallback = silent,
    labelmap: bool = False,
) -> tuple[str, ...]:
    """Write the DICOM files of a run without them.

    Args:
        folder: of a run on a DICOM series.
        output: folder for the files; None for that of the run.
        progress: of the reading.
        labelmap: see `make_segmentation`.

    Returns:
        See `DicomSource.notes`.

    Raises:
        InputError: as `read_run`, `risk_of`, `read_dicom_source` and `write_dicom` do.
    """
    output = output or folder
    refuse_existing(output, (*DICOM_NAMES, DICOM_KEY_IMAGES))
    run = read_run(folder, progress)
    source = read_dicom_source(run.scan)
    write_dicom(
        output,
        source,
        run.lungs,
        run.labels,
        run.nodules,
        run.record,
        risk_of(run),
        labelmap=labelmap,
    )
    return source.notes


def replace_facts(folder: Path, data: ClinicalData, progress: ProgressCallback = silent) -> None:
    """Give a run other clinical data: replace its reports and then, as a mark of it, its record.

    Args:
        folder: of the run.
        data: of the patient and the nodules.
        progress: of the reading.

    Raises:
        InputError: as `read_run` and `assess_scan` do, or if the files cannot be replaced.
    """
    run = read_run(folder, progress)
    parameters = run.record["parameters"] | {CLINICAL_DATA: data.to_dict()}
    record = run.record | {"parameters": parameters}
    record.pop(RISK, None)
    run = replace(run, record=record)
    with ExitStack() as files:
        if (folder / DICOM_REPORT).exists():
            _dicom_report(run).save_as(files.enter_context(replaced_file(folder / DICOM_REPORT)))
        write_report_again(run, files.enter_context(replaced_file(folder / REPORT)))
    replace_text(folder / RECORD, json_text(record))


@_without_warnings()
def _dicom_report(run: RunResult) -> Dataset:
    """Make the DICOM report of a run about the DICOM segmentation in its folder."""
    from highdicom.seg import segread  # noqa: PLC0415 - slow to import

    from LungNoduleSegLib.results.dicom_report import make_report  # noqa: PLC0415
    from LungNoduleSegLib.results.dicom_segmentation import Algorithms  # noqa: PLC0415

    file = run.folder / DICOM_SEGMENTATION
    source, algorithms, risk = read_dicom_source(run.scan), Algorithms.of(run.record), risk_of(run)
    try:
        segmentation = segread(file)
        return make_report(source, segmentation, run.lungs, run.nodules, algorithms, risk)
    except DAMAGED as error:
        raise InputError(
            f"{file} is missing, damaged or lacks a nodule of {TABLE}, so {DICOM_REPORT} cannot "
            "take up other facts: delete the .dcm files there, and use `export-dicom` afterwards."
        ) from error


class SceneWriter(Protocol):
    """Writes a scan and its results as a Slicer scene file."""

    def __call__(self, path: Path, image: sitk.Image, results: Path, rules: NoduleRules) -> None:
        """Write the scene; see `LungNoduleSegSlicer.scene.saving_logic.write_scene`."""


def write_results(
    folder: Path,
    analysis: Analysis,
    record: dict[str, Any],
    timing: Timing,
    progress: ProgressCallback,
    *,
    scene: SceneWriter | None = None,
    clinical_data: ClinicalData = NO_CLINICAL_DATA,
    dicom: DicomSource | None = None,
    probability: bool = False,
    masks: bool = False,
) -> None:
    """Write all results, with images on the grid of the input scan.

    With `dicom`, the source series, also DICOM segmentation and report; with `probability` also the
    network's output, in steps of `to_steps` on the cropped axial grid; with `masks` lungs, nodules
    and lobes also as `RunMasks`.

    Raises:
        InputError: if one of the files exists.
    """
    folder.mkdir(parents=True, exist_ok=True)
    findings = analysis.findings
    with timing.stage("Results", progress):
        lungs = analysis.view.restore(analysis.lungs)
        nodules = analysis.view.restore(findings.labels)
        for name, image in ((LUNGS, lungs), (NODULES, nodules)):
            with new_file(folder / name) as temporary:
                write_image(image, temporary, level=1)
        write_nodules_csv(folder / TABLE, findings.nodules)
        write_segmentation(folder / SEGMENTATION, lungs, nodules)
        if probability:
            with new_file(folder / PROBABILITY) as temporary:
                write_image(to_steps(analysis.probability), temporary)
        if masks:
            lobes = None if analysis.lobes is None else analysis.view.restore(analysis.lobes)
            RunMasks.of(lungs, nodules, lobes).write(folder / MASKS)
    if scene is not None:
        with timing.stage("Scene", progress):
            rules = NoduleRules(**record["parameters"]["rules"])
            scene(folder / SCENE, analysis.scan.image, folder, rules)
    risk = ScanRisk(
        clinical_data.patient,
        assess_scan(findings.nodules, analysis.lungs, clinical_data),
    )
    if dicom is not None:
        with timing.stage("DICOM", progress):
            write_dicom(folder, dicom, lungs, nodules, findings.nodules, record, risk)
    with timing.stage("Report", progress):
        write_report(
            folder / REPORT,
            analysis.scan,
            analysis.hu,
            analysis.lungs,
            findings,
            record | {"timing_s": timing.seconds},
            risk,
        )
    found = {
        "nodules": len(findings.nodules),
        "rejected": findings.rejected_by_rule,
        "timing_s": timing.seconds,
    }
    write_object(folder / RECORD, record | found)
