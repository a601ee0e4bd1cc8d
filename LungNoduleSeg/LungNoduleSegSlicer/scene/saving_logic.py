"""Write the results of a volume, with a reader's corrections, to files or one `.mrb` file."""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer

from CTLungScreeningLib.child_process import Pause, Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.json_files import parse_json
from CTLungScreeningLib.reading.ct_scan import SeriesInfo
from CTLungScreeningSlicer.scene import mrml_host
from CTLungScreeningSlicer.scene.commands import Commands
from CTLungScreeningSlicer.scene.mrml_host import at_once
from CTLungScreeningSlicer.scene.mrml_volume import export_work, show_in_lung_window
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.results.reading import (
    DICOM_KEY_IMAGES,
    DICOM_NAMES,
    MASKS,
    RECORD,
    RISK,
    SCAN,
    SHA256,
    TABLE,
    RunMasks,
)
from LungNoduleSegLib.results.segments import LUNG_STYLES, TAG, fingerprint
from LungNoduleSegLib.risk.assessment import ScanRisk
from LungNoduleSegSlicer.scene import nodule_segments
from LungNoduleSegSlicer.scene.result_nodes import (
    RUN_RECORD,
    ResultNodes,
    dicom_ids,
    masks_work,
    nodules_of,
    require_in_place,
    rules_of,
    study_date_of,
    verdicts_of,
    volume_node_of,
)
from LungNoduleSegSlicer.scene.review_state import require_measured

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
"""Method of lungs that were edited after the run."""


def keep_record(
    folder: Path, table_node: Any, volume_node: Any, lungs_node: Any | None = None
) -> None:
    """Keep the record of a run with its table, if the run left one.

    The names of the nodes replace the paths of the files that the run got of them.

    Raises:
        InputError: if it cannot be read.
    """
    file = folder / RECORD
    if not file.exists():
        table_node.RemoveAttribute(RUN_RECORD)
        return
    try:
        record: dict[str, Any] = parse_json(file.read_bytes())
        record.pop("command", None)
        where = {"source": volume_node.GetName(), "sop_instance_uids": [], SHA256: None}
        record["input"] = {**record.get("input", {}), **where}
        if lungs_node is not None:
            record["parameters"] = {
                **record.get("parameters", {}),
                "lung_method": lungs_node.GetName(),
            }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not the record of a run: run the scan again.") from error
    table_node.SetAttribute(RUN_RECORD, json.dumps(record))


def _is_recorded(results: ResultNodes) -> bool:
    return results.table.GetAttribute(RUN_RECORD) is not None


def _record(results: ResultNodes, masks: RunMasks) -> dict[str, Any]:
    """The record of the run, with the reader's changes."""
    text = results.table.GetAttribute(RUN_RECORD)
    if text is None:
        raise InputError(
            f"{results.table.GetName()} does not say what made it: run the scan again."
        )
    record: dict[str, Any] = json.loads(text)
    segmentation = results.segmentation.GetSegmentation()
    for side, mask in masks.lungs.items():
        segment = segmentation.GetSegment(LUNG_STYLES[side].id)
        if nodule_segments.tag(segment, TAG) != fingerprint(segment.GetName(), mask.voxels):
            record.setdefault("parameters", {})["lung_method"] = EDITED
    verdicts = Counter(str(one) for one in verdicts_of(results.table).values())
    return record | ({"review": dict(verdicts)} if verdicts else {})


def run_work(
    results: ResultNodes,
    folder: Path,
    evaluate: Callable[[ResultNodes], ScanRisk] | None = None,
    series: Path | None = None,
) -> Work[None]:
    """Write scan, lungs, nodules and table into a new folder that `read_run` reads.

    Nodules that a reader rejected are left out.

    Args:
        results: of a run, or anything with lungs and a table of nodules.
        folder: the new one.
        evaluate: gives the risk for the record; then the table must say what made it.
        series: folder with the DICOM files of the scan; None to write the volume itself.

    Raises:
        InputError: if a node cannot be used, see `masks_work` and `nodules_of`, or a nodule was
            edited since it was measured.
    """
    volume = volume_node_of(results)
    folder.mkdir(parents=True)
    require_in_place(results)
    require_measured(results)  # a nodule that was emptied would be no mask
    masks = yield from masks_work(results)
    require_measured(results)  # these masks
    nodules = nodules_of(results.table)
    record = _record(results, masks) if evaluate is not None or _is_recorded(results) else {}
    patient, uid = dicom_ids(results)
    date = study_date_of(volume)
    info = SeriesInfo(patient, "", uid, "", "", "" if date is None else f"{date:%Y%m%d}")
    found = {
        "source": str(series or folder / SCAN),
        "name": volume.GetName(),
        "series": asdict(info) | {"series_instance_uid": None if series else uid or None},
        "sop_instance_uids": [],
    }
    if results.probability is not None and "parameters" in record:
        record["parameters"]["rules"] = asdict(rules_of(results.probability))
    record |= {"input": record.get("input", {}) | found}
    if evaluate is not None:
        record[RISK] = evaluate(results).to_dict()
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
    write_nodules_csv(folder / TABLE, nodules)
    yield Pause("Writing", 0, 1)
    masks.write(folder / MASKS)
    yield Pause("Writing", 0, 1)
    if series is None:
        yield from export_work(volume, folder / SCAN)


class SavingLogic:
    """Writes the results of a volume as they are in the scene; the long work in a child process."""

    def __init__(self, commands: Commands, evaluate: Callable[[ResultNodes], ScanRisk]) -> None:
        """Take the commands of `lung-nodule-seg`, and the function that returns the risk."""
        self._commands, self._evaluate = commands, evaluate

    def saveTable(self, results: ResultNodes, path: Path) -> None:
        """Write the nodules that are not rejected as a new CSV file.

        Raises:
            InputError: if the file exists, the table is not one of nodules, the volume was moved
                since the run, or a nodule was edited since it was measured.
        """
        require_in_place(results)
        require_measured(results)
        write_nodules_csv(path, nodules_of(results.table))

    def reportWork(self, results: ResultNodes, path: Path) -> Work[None]:
        """Write the report as a new HTML file.

        Args:
            results: of a run, with its scan in the scene.
            path: the new file.

        Raises:
            InputError: if the file exists, or the results are not complete.
            ChildError: if the child process failed; its log is named.
        """
        refuse_existing(path.parent, [path.name])
        with _work_folder() as folder:
            yield from run_work(results, folder / "run", self._evaluate)
            yield from self._commands.work("report", folder / "run", "-o", path)

    saveReport = at_once(reportWork)

    def dicomWork(
        self, results: ResultNodes, folder: Path, files: Sequence[Path]
    ) -> Work[list[str]]:
        """Write the results as DICOM SEG, SR and key images into a folder.

        Args:
            results: of a run.
            folder: made if missing; nothing in it is overwritten.
            files: the DICOM files of the volume, of one series.

        Returns:
            See `DicomSource.notes`.

        Raises:
            InputError: if the files do not show the volume, or as `write_dicom`.
            ChildError: if the child process failed; its log is named.
        """
        refuse_existing(folder, (*DICOM_NAMES, DICOM_KEY_IMAGES))
        with _work_folder() as work:
            series = work / "series"
            series.mkdir()
            for number, file in enumerate(files, start=1):
                shutil.copyfile(file, series / f"{number}.dcm")
                yield Pause("Copying", number, len(files))
            yield from run_work(results, work / "run", self._evaluate, series)
            try:
                done = yield from self._commands.work("export-dicom", work / "run", "-o", folder)
            except InputError as problem:
                name = volume_node_of(results).GetName()
                raise InputError(str(problem).replace(str(series), name)) from None
            return [str(note) for note in done["notes"]]

    saveDicom = at_once(dicomWork)


@contextmanager
def _work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="LungNoduleSeg-", dir=slicer.app.temporaryPath, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
