"""Write the results of a run."""

from pathlib import Path
from typing import Any, Protocol

import SimpleITK as sitk

from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.json_files import json_text
from CTLungScreeningLib.progress import ProgressCallback
from CTLungScreeningLib.reading.volume_files import write_image
from LungNoduleSegLib.nodules.candidates import NoduleRules
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.nodules.threshold import to_steps
from LungNoduleSegLib.pipeline import Analysis, Timing
from LungNoduleSegLib.results.dicom_source import DicomSource
from LungNoduleSegLib.results.names import (
    LUNGS,
    NODULES,
    PROBABILITY,
    RECORD,
    REPORT,
    SCENE,
    SEGMENTATION,
    TABLE,
)
from LungNoduleSegLib.results.report import write_report
from LungNoduleSegLib.results.segments import write_segmentation
from LungNoduleSegLib.risk.assessment import assess_scan
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData
from LungNoduleSegLib.risk.scan_risk import ScanRisk


class SceneWriter(Protocol):
    """Writes a scan and the results in a folder as one new file that Slicer opens."""

    def __call__(self, path: Path, image: sitk.Image, results: Path, rules: NoduleRules) -> None:
        """Write the scene; see `LungNoduleSegSlicer.scene.mrb.write_scene`."""


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
) -> None:
    """Write everything that was found; images go back to the grid of the scan as it came.

    With `dicom`, the series that the scan is, also as DICOM segmentation and report; with
    `probability` also what the network said, in steps of `to_steps` on the cropped axial grid.

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
    if scene is not None:
        with timing.stage("Scene", progress):
            rules = NoduleRules(**record["parameters"]["rules"])
            scene(folder / SCENE, analysis.scan.image, folder, rules)
    risk = ScanRisk(
        clinical_data.patient,
        assess_scan(findings.nodules, analysis.lungs, clinical_data),
    )
    if dicom is not None:
        from LungNoduleSegLib.results.dicom_writing import write_dicom  # noqa: PLC0415 - slow

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
    with new_file(folder / RECORD) as temporary:
        temporary.write_text(json_text(record | found), encoding="utf-8")
