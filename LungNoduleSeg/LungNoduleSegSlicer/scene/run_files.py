"""The results of a volume written as those of a run, with a reader's corrections, for commands."""

import json
from dataclasses import asdict
from pathlib import Path

import SimpleITK as sitk

from CTLungScreeningSlicer.scene.mrml_volume import export_volume
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.results.names import LUNGS, NODULES, RECORD, TABLE
from LungNoduleSegSlicer.scene.probability_node import rules_of
from LungNoduleSegSlicer.scene.result_nodes import (
    RUN_RECORD,
    ResultNodes,
    dicom_ids,
    lungs_of,
    nodule_labels_of,
    nodules_of,
    study_date_of,
    volume_node_of,
)


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
