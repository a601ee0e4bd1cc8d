"""Results of a volume written to files as they are in the scene, or all as one `.mrb` file."""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import AxialView, crop_to, onto_grid
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan, SeriesInfo
from CTLungScreeningSlicer.scene import mrml_host
from CTLungScreeningSlicer.scene.mrml_volume import export_volume, show_in_lung_window
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.results.reading import LUNGS, NODULES, RECORD, TABLE
from LungNoduleSegLib.results.segments import LUNG_STYLES
from LungNoduleSegSlicer.scene import nodule_segments
from LungNoduleSegSlicer.scene.result_nodes import (
    RUN_RECORD,
    ResultNodes,
    dicom_ids,
    lungs_of,
    nodule_labels_of,
    nodules_of,
    rules_of,
    study_date_of,
    verdicts_of,
    volume_node_of,
    volume_of,
)

SCAN_NAME = "Chest CT"


def write_scene(
    path: Path, image: sitk.Image, results: Path, rules: NoduleRules | None = None
) -> None:
    """Write scan, segments, table and control points as a new `.mrb` file.

    Args:
        path: the new file.
        image: the scan, LPS mm.
        results: folder with the segmentation and the table of the run.
        rules: by which the nodules were found, where the run has not written its record yet.

    Raises:
        InputError: if `path` exists, slicer-core is missing, the results cannot be read or the
            scene of this process is in use.
    """
    scene = mrml_host.start()
    if scene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode"):
        raise InputError(f"{path} was not written: the scene holds other data, save that instead.")
    from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: PLC0415 - needs what start() checks
    from LungNoduleSegSlicer.scene import result_nodes  # noqa: PLC0415
    from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: PLC0415

    logic = LungNoduleSegLogic()
    try:
        volume = add_volume(image, SCAN_NAME)
        show_in_lung_window(volume)
        nodes = logic.importResults(results, volume)
        if rules is not None and nodes.probability is not None:
            result_nodes.set_rules(nodes.probability, rules)
        logic.saveScene(path)
    finally:
        scene.Clear(False)


EDITED = "edited by hand"
"""Stands for the method of lungs that were edited since."""


def keep_record(folder: Path, table_node: Any, volume_node: Any) -> None:
    """Keep the record of a run with its table, if the run left one; paths are left out.

    Raises:
        InputError: if it cannot be read.
    """
    file = folder / RECORD
    if not file.exists():
        table_node.RemoveAttribute(RUN_RECORD)
        return
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        record.pop("command", None)
        where = {"source": volume_node.GetName(), "sop_instance_uids": []}
        record["input"] = {**record.get("input", {}), **where}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no record of a run: run the scan again.") from error
    table_node.SetAttribute(RUN_RECORD, json.dumps(record))


def save_table(results: ResultNodes, path: Path) -> None:
    """Write the nodules that are not rejected as a new CSV file.

    Raises:
        InputError: if the file exists, or the table is not one of nodules.
    """
    write_nodules_csv(path, nodules_of(results.table))


def save_report(results: ResultNodes, path: Path, risk: Any | None = None) -> None:
    """Write the report as a new HTML file; takes seconds.

    Args:
        results: of a run, with its scan in the scene.
        path: the new file.
        risk: the `ScanRisk` of the nodules that are not rejected; None: from the scan alone.

    Raises:
        InputError: if the file exists, or the results are not complete.
    """
    from LungNoduleSegLib.nodules.finding import NoduleFindings  # noqa: PLC0415 - installed later
    from LungNoduleSegLib.results.report import write_report  # noqa: PLC0415 - installed later

    volume, image = volume_node_of(results.segmentation), volume_of(results.segmentation)
    axial = AxialView.of(image, AIR_HU).image
    lungs, hu = crop_to(lungs_of(results.segmentation, axial), axial)
    labels = onto_grid(nodule_labels_of(results), hu, 0)
    patient, series = dicom_ids(results.segmentation)
    date = study_date_of(volume)
    info = SeriesInfo(patient, "", series, "", "", "" if date is None else f"{date:%Y%m%d}")
    scan = CTScan(image, Path(volume.GetName()), info if series else None)
    findings = NoduleFindings(labels, nodules_of(results.table), ())
    write_report(path, scan, hu, lungs, findings, _record(results), risk)


def save_dicom(
    results: ResultNodes, folder: Path, files: Sequence[Path], risk: Any | None = None
) -> None:
    """Write the results as DICOM SEG, SR and key images into a folder; takes seconds.

    Args:
        results: of a run.
        folder: made if missing; nothing in it is overwritten.
        files: the DICOM files of the volume, of one series.
        risk: the `ScanRisk` of the nodules that are not rejected; None: it is left out.

    Raises:
        InputError: if the files do not show the volume, or as `write_dicom`.
    """
    from LungNoduleSegLib.results.dicom_source import read_dicom_source  # noqa: PLC0415 - later
    from LungNoduleSegLib.results.writing import write_dicom  # noqa: PLC0415 - later

    record = _record(results)
    with tempfile.TemporaryDirectory(dir=slicer.app.temporaryPath) as work:
        for number, file in enumerate(files):
            shutil.copyfile(file, Path(work, f"{number}.dcm"))
        scan = read_ct(Path(work))
        source = read_dicom_source(scan)
    name = volume_node_of(results.segmentation).GetName()
    lungs = _fitted(lungs_of(results.segmentation), scan.image, name)
    labels = _fitted(nodule_labels_of(results), scan.image, name)
    write_dicom(folder, source, lungs, labels, nodules_of(results.table), record, risk)


def _record(results: ResultNodes) -> dict[str, Any]:
    """What made the results, with what a reader did to them."""
    text = results.table.GetAttribute(RUN_RECORD)
    if text is None:
        raise InputError(
            f"{results.table.GetName()} does not say what made it: run the scan again."
        )
    record: dict[str, Any] = json.loads(text)
    lungs = [style.id for style in LUNG_STYLES.values()]
    segmentation = results.segmentation.GetSegmentation()
    there = [one for one in lungs if segmentation.GetSegment(one) is not None]
    if not all(nodule_segments.is_as_made(results.segmentation, one) for one in there):
        record["parameters"]["lung_method"] = EDITED
    verdicts = Counter(str(one) for one in verdicts_of(results.table).values())
    return record | ({"review": dict(verdicts)} if verdicts else {})


def _fitted(labels: sitk.Image, grid: sitk.Image, name: str) -> sitk.Image:
    """Bring labels to a grid that has the same voxels, in whatever order."""
    brought = onto_grid(labels, grid, 0)
    voxels = [(sitk.GetArrayViewFromImage(one) > 0).sum() for one in (labels, brought)]
    if voxels[0] != voxels[1]:
        raise InputError(
            f"{name} does not lie where its DICOM files say: take it out of its transform, "
            "load it again from the DICOM module, and run it again."
        )
    return brought


def write_run(results: ResultNodes, folder: Path) -> None:
    """Write scan, lungs, nodules and table into a new folder that `read_run` reads.

    Nodules that a reader rejected are left out.

    Raises:
        InputError: if a node cannot be used, see `lungs_of`, `nodule_labels_of` and `nodules_of`.
    """
    volume = volume_node_of(results.segmentation)
    nodules = nodules_of(results.table)
    labels = nodule_labels_of(results)
    lungs = lungs_of(results.segmentation, labels)
    folder.mkdir(parents=True)
    scan = folder / "scan.nrrd"
    export_volume(volume, scan)
    sitk.WriteImage(sitk.Cast(lungs, sitk.sitkUInt8), folder / LUNGS)
    sitk.WriteImage(labels, folder / NODULES)
    write_nodules_csv(folder / TABLE, nodules)
    patient, _ = dicom_ids(results.segmentation)
    date = study_date_of(volume)
    found = {
        "source": str(scan),
        "name": volume.GetName(),
        "series": {
            "patient_id": patient,
            "series_instance_uid": None,
            "study_date": "" if date is None else f"{date:%Y%m%d}",
        },
    }
    made = json.loads(results.table.GetAttribute(RUN_RECORD) or "{}")
    record = {name: made[name] for name in ("model", "parameters") if name in made}
    if results.probability is not None and "parameters" in record:
        record["parameters"]["rules"] = asdict(rules_of(results.probability))
    (folder / RECORD).write_text(json.dumps({"input": found, **record}), encoding="utf-8")
