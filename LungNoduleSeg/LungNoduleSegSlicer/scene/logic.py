"""Lungs and nodules of a volume in a Slicer scene, in Slicer and on slicer-core alike."""

import math
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer

import CTSliceToolsLib
import LungNoduleSegLib
from CTLungScreeningLib.child_process import Pause, Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.options import arguments_of
from CTLungScreeningLib.reading.volume_files import read_labels
from CTLungScreeningSlicer.scene import mrml_host, mrml_volume
from CTLungScreeningSlicer.scene.commands import Commands
from CTLungScreeningSlicer.scene.history import History
from CTLungScreeningSlicer.scene.mrml_host import at_once
from CTLungScreeningSlicer.scene.mrml_volume import (
    INSTANCE_UIDS,
    add_node,
    add_volume,
    export_work,
    show_in_lung_window,
)
from LungNoduleSegLib.detectors.models import find_card
from LungNoduleSegLib.nodules.table import read_nodules_csv
from LungNoduleSegLib.options import BUNDLED, DEFAULT_MODEL, OutputOptions, RunOptions
from LungNoduleSegLib.results.reading import MASKS, PROBABILITY, SCAN, SEGMENTATION, TABLE, RunMasks
from LungNoduleSegLib.results.segments import LUNG_STYLES
from LungNoduleSegLib.run_cost import ExpectedCost, expected_cost, run_kind
from LungNoduleSegSlicer.scene import (
    mrml_results,
    nodule_segments,
    result_nodes,
    review_state,
)
from LungNoduleSegSlicer.scene.classifier_logic import ClassifierLogic
from LungNoduleSegSlicer.scene.growth_logic import GrowthLogic
from LungNoduleSegSlicer.scene.nodule_segments import segment_id, segments_of
from LungNoduleSegSlicer.scene.rerun_merge import (
    RerunMerge,
    earlier_results,
    keep_earlier,
    require_own_nodes,
)
from LungNoduleSegSlicer.scene.result_nodes import (
    ResultNodes,
    connect,
    find_results,
    require_in_place,
    write_lungs,
)
from LungNoduleSegSlicer.scene.review_logic import ReviewLogic
from LungNoduleSegSlicer.scene.risk_logic import RiskLogic
from LungNoduleSegSlicer.scene.saving_logic import SavingLogic, keep_record

RUN_FOLDER = "LungNoduleSeg.run"
"""Attribute of a volume that was loaded with the results of a run: their folder."""


class LungNoduleSegLogic:
    """Finds the nodules of a volume; its parts review them, assess their risk and compare scans.

    Attributes:
        scene: the vtkMRMLScene that all of it works in.
        history: undoes changes of the scene, of whatever part.
        commands: of `lung-nodule-seg`, in child processes.
        review: a reader's verdicts and corrections.
        growth: the comparison of two scans of one patient.
        classifier: predictions by a trained model.
        risk: published models and guidelines.
        saving: report, table and DICOM files.
    """

    def __init__(self) -> None:
        self.scene = mrml_host.start()
        self.history = History(self.scene)
        self.commands = Commands(LungNoduleSegLib, CTSliceToolsLib)
        self.review = ReviewLogic(self.history)
        self.growth = GrowthLogic(self.history, self.commands)
        self.classifier = ClassifierLogic(self.history)
        self.risk = RiskLogic(self.history, self.growth, self.classifier)
        self.saving = SavingLogic(self.commands, self.risk.evaluate)

    def processWork(
        self,
        volumeNode: Any,
        segmentationNode: Any | None = None,
        tableNode: Any | None = None,
        fiducialNode: Any | None = None,
        *,
        lungsNode: Any | None = None,
        options: RunOptions = BUNDLED,
        outputFolder: Path | None = None,
    ) -> Work[ResultNodes]:
        """Find lungs and nodules of a volume in a child process, and import the results.

        Args:
            volumeNode: a chest CT in HU; linear parent transforms are applied to it.
            segmentationNode: to add the segments to, see `importResults`; None for a new one.
            tableNode: likewise for the table.
            fiducialNode: likewise for the control points.
            lungsNode: segmentation with the lungs to use: those of a run, perhaps edited, or the
                segments with "lung" in their name. Those of `segmentationNode` are not changed.
            options: of the run.
            outputFolder: keeps the files of the run; None for a temporary folder.

        Raises:
            InputError: if the volume or a node cannot be used.
            ChildError: if the child process failed; its log is named.
        """
        mrml_results.require_usable(segmentationNode, tableNode, fiducialNode)
        require_own_nodes(volumeNode, segmentationNode, tableNode, fiducialNode)
        work = Path(tempfile.mkdtemp(prefix="LungNoduleSeg-", dir=slicer.app.temporaryPath))
        scan = work / "scan.nrrd"
        lungs = work / "lungs.nrrd"
        results = outputFolder or work / "results"
        name = volumeNode.GetName()
        lungsName = "" if lungsNode is None else lungsNode.GetName()
        targets = (segmentationNode, tableNode, fiducialNode)
        try:
            files = arguments_of(OutputOptions(probability=True, masks=True))
            arguments: list[str | Path] = ["run", scan, "-o", results, *files]
            if lungsNode is not None:
                write_lungs(lungsNode, lungs)
                arguments += ["--lungs-file", lungs]
            yield from export_work(volumeNode, scan)
            yield from self.commands.work(*arguments, *arguments_of(options))
            for node in (volumeNode, *targets):
                if node is not None and node.GetScene() is None:
                    raise InputError(f"{node.GetName()} was deleted during the run.")
            return (yield from self.importWork(results, volumeNode, *targets, lungsNode=lungsNode))
        except InputError as problem:
            text = str(problem).replace(str(scan), name)
            if lungsNode is not None:
                text = text.replace(str(lungs), lungsName)
            raise InputError(text) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)

    process = at_once(processWork)

    def importWork(
        self,
        folder: Path,
        volumeNode: Any,
        segmentationNode: Any | None = None,
        tableNode: Any | None = None,
        fiducialNode: Any | None = None,
        *,
        lungsNode: Any | None = None,
    ) -> Work[ResultNodes]:
        """Import the results of a run; only the last step changes the scene.

        Nodes keep their content, except for untouched results of an earlier run, which are
        replaced; for None a new node is made, named after the volume. If all three belong to an
        earlier run, nodules that a reader judged, added or edited are kept, and what the run finds
        in their place is left out. If anything fails, the scene is as it was.

        Args:
            folder: output of `lung-nodule-seg run`.
            volumeNode: the volume that was segmented.
            segmentationNode: for the right lung, the left lung and one segment per nodule.
            tableNode: for one row per nodule; empty or from an earlier run.
            fiducialNode: for one control point per nodule.
            lungsNode: segmentation that the run got its lungs from; the lungs of a run in
                `segmentationNode`, if that is it, stay as they are.

        Raises:
            InputError: if the files, or one of the nodes, cannot be used, a node holds the results
                of another volume, or the volume was moved since the earlier run.
        """
        nodules = read_nodules_csv(folder / TABLE)
        if (folder / MASKS).exists():
            file = folder / MASKS
            masks = RunMasks.read(file)
            mrml_results.require_same_place(masks.grid, volumeNode, file)
            yield Pause("Importing", 0, 1)
            segments = yield from nodule_segments.segments_work(masks, nodules)
        else:
            file = folder / SEGMENTATION
            segments = mrml_results.read_segmentation(file)
            grid = nodule_segments.grid_of(mrml_results.reference_grid(segments))
            mrml_results.require_same_place(grid, volumeNode, file)
            # Before they are in the scene, where each that changes is drawn anew.
            nodule_segments.separate(segments, [segment_id(one.id) for one in nodules])
        mrml_results.require_usable(segmentationNode, tableNode, fiducialNode)
        require_own_nodes(volumeNode, segmentationNode, tableNode, fiducialNode)

        earlier = earlier_results(segmentationNode, tableNode, fiducialNode)
        if earlier is not None:
            require_in_place(earlier)
        probability = result_nodes.of_table(tableNode)
        name = volumeNode.GetName()
        changed = (tableNode, fiducialNode, probability)
        around = keep_earlier(segmentationNode, tableNode, earlier)
        same = lungsNode is not None and lungsNode is segmentationNode
        keep = same and bool(segments_of(segmentationNode, LUNG_STYLES))
        with self.history.allOrNothing(*changed, what=f"results of {name}", around=around):
            nodes = ResultNodes(
                segmentationNode or self._add("Segmentation", f"{name} lungs and nodules"),
                tableNode or self._add("Table", f"{name} nodule table"),
                fiducialNode or self._add("MarkupsFiducial", f"{name} nodules"),
            )
            if earlier is None:
                measured = review_state.fingerprints(segments, [one.id for one in nodules])
                mrml_results.add_segments(nodes.segmentation, segments, volumeNode, keep_lungs=keep)
                mrml_results.fill_table(nodes.table, nodules)
                review_state.keep_measured(nodes.table, measured)
                mrml_results.fill_points(nodes.fiducials, nodules)
            else:
                second = RerunMerge.of(earlier, segments, nodules)
                mrml_results.add_segments(
                    nodes.segmentation,
                    second.segments,
                    volumeNode,
                    keep_lungs=keep,
                    stay=second.stay,
                )
                second.show(nodes)
            for node, target in (
                (nodes.segmentation, segmentationNode),
                (nodes.table, tableNode),
                (nodes.fiducials, fiducialNode),
            ):
                if target is None:
                    mrml_volume.place_beside(volumeNode, node)
            connect(nodes, volumeNode)
            keep_record(folder, nodes.table, volumeNode, lungsNode)
            if (folder / PROBABILITY).exists():
                kept = result_nodes.bring(folder, nodes.table)
                mrml_volume.place_beside(volumeNode, kept)
                nodes = replace(nodes, probability=kept)
            else:
                nodes.table.RemoveNodeReferenceIDs(result_nodes.PROBABILITY_ROLE)
        return nodes

    importResults = at_once(importWork)

    def loadRunWork(self, folder: Path) -> Work[ResultNodes]:
        """Load the scan and the results of a run into the scene, unless they are there already.

        Args:
            folder: output of `lung-nodule-seg run`; the scan is read from its original place.

        Raises:
            InputError: naming the file that is missing, damaged or does not fit the others.
            ChildError: if the child process failed; its log is named.
        """
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            there = self.resultsOf(node) if node.GetAttribute(RUN_FOLDER) == str(folder) else None
            if there is not None:
                return there
        with tempfile.TemporaryDirectory(
            prefix="LungNoduleSeg-", dir=slicer.app.temporaryPath, ignore_cleanup_errors=True
        ) as work:
            unpacked = Path(work, "run")
            run = yield from self.commands.work("unpack", folder, "-o", unpacked)
            scan = read_labels(unpacked / SCAN)
            yield Pause("Importing", 0, 1)
            volume = add_volume(scan, run["name"])
            if run["sop_instance_uids"]:
                volume.SetAttribute(INSTANCE_UIDS, " ".join(run["sop_instance_uids"]))
            volume.SetAttribute(RUN_FOLDER, str(folder))
            show_in_lung_window(volume)
            try:
                return (yield from self.importWork(unpacked, volume))
            except BaseException:
                self.scene.RemoveNode(volume)
                raise

    loadRun = at_once(loadRunWork)

    def resultsOf(self, volumeNode: Any) -> ResultNodes | None:
        """Return the results of a volume, from this session or a saved scene; None without any."""
        return find_results(volumeNode)

    def restorePoints(self) -> bool:
        """Make point lists that were deleted from results again; tell whether there were any."""
        found = result_nodes.results_without_points(self.scene)
        for one in found:
            volume = result_nodes.reference_of(one) or one.segmentation
            points = self._add("MarkupsFiducial", f"{volume.GetName()} nodules")
            one.table.SetNodeReferenceID(result_nodes.POINTS_ROLE, points.GetID())
            with suppress(InputError):  # the table holds something else now, which the panel says
                mrml_results.fill_points(points, result_nodes.nodules_of(one.table, rejected=True))
            mrml_volume.place_beside(volume, points)
        return bool(found)

    def expectedCost(
        self, volumeNode: Any, modelFile: Path | None = None, lungs: str = "volume"
    ) -> ExpectedCost:
        """Estimate the time and memory that `process` needs on this machine.

        Args:
            volumeNode: with an image.
            modelFile: None for the bundled model.
            lungs: method of lung segmentation, or `EXTERNAL_LUNGS`.

        Raises:
            InputError: if the model's card cannot be read.
        """
        voxels = math.prod(volumeNode.GetImageData().GetDimensions())
        card = find_card(modelFile or DEFAULT_MODEL)
        return expected_cost(voxels, run_kind(lungs, card.sha256), card.cost)

    saveScene = staticmethod(mrml_host.save_scene)

    def _add(self, kind: str, name: str) -> Any:
        return add_node(self.scene, kind, name)
