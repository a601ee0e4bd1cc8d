"""Annotation, localization and matching of CT volumes in a Slicer scene, and the commands."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer

import CTSliceToolsLib
from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import ScanAlignment
from CTLungScreeningSlicer.scene import mrml_host
from CTLungScreeningSlicer.scene.commands import Commands
from CTLungScreeningSlicer.scene.history import Snapshot
from CTLungScreeningSlicer.scene.mrml_host import at_once
from CTLungScreeningSlicer.scene.mrml_volume import export_work, ijk_to_world
from CTSliceToolsLib.localizer.matching import align_scans
from CTSliceToolsLib.localizer.prediction import ScanPrediction, SliceLocation
from CTSliceToolsLib.localizer.results import (
    read_alignment,
    read_prediction,
    write_prediction,
)
from CTSliceToolsSlicer.scene import prediction_nodes
from CTSliceToolsSlicer.scene.annotation_logic import AnnotationLogic
from CTSliceToolsSlicer.scene.prediction_nodes import PredictionNodes


class CTSliceToolsLogic:
    """The functions of the panel CTSliceTools, also for scripts.

    What needs Keras, or takes long, runs in a child process. Each such method has a `progress` that
    is called at least ten times a second and may raise `Cancelled`, which ends the child with all
    its descendants; methods named `...Work` give the same as `child_process.Work` for a panel.
    Heights z and slice offsets are those of the world's axial slices in mm.

    Attributes:
        scene: the vtkMRMLScene that all of it works in.
        annotation: the landmarks of volumes.
        commands: of `ct-slice-tools`, in child processes.
    """

    def __init__(self) -> None:
        self.scene = mrml_host.start()
        self.annotation = AnnotationLogic()
        self.commands = Commands(CTSliceToolsLib)
        self._aligned: tuple[list[tuple[SliceLocation, ...]], ScanAlignment] | None = None
        self._checked: tuple[list[tuple[SliceLocation, ...]], bool] | None = None

    def predictWork(self, volumeNode: Any, modelFile: Path | None = None) -> Work[PredictionNodes]:
        """Find out where in the body the slices of a volume lie, and where its landmarks are.

        Args:
            volumeNode: a CT in HU; linear parent transforms are applied to it.
            modelFile: a `.keras` file with its card; None for the bundled localizer.

        Returns:
            New nodes. Those of an earlier prediction of the volume are removed. If anything fails
            the scene is as it was.

        Raises:
            InputError: if the volume or the model cannot be used.
            ChildError: if the child process failed; its log is named.
        """
        work = Path(tempfile.mkdtemp(prefix="CTSliceTools-", dir=slicer.app.temporaryPath))
        scan, result = work / "scan.nrrd", work / "prediction.json"
        name = volumeNode.GetName()
        try:
            place = ijk_to_world(volumeNode)
            yield from export_work(volumeNode, scan)
            options = () if modelFile is None else ("--model", modelFile)
            yield from self.commands.work("predict", scan, "-o", result, "--no-plot", *options)
            if volumeNode.GetScene() is None:
                raise InputError(f"{name} was deleted while it was being localized.")
            if not np.array_equal(place, ijk_to_world(volumeNode)):
                raise InputError(f"{name} was moved while it was being localized: run it again.")
            return self._show(volumeNode, read_prediction(result))
        except InputError as problem:
            raise InputError(str(problem).replace(str(scan), name)) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)

    predict = at_once(predictWork)

    saveScene = staticmethod(mrml_host.save_scene)

    def predictionNodes(self, volumeNode: Any) -> PredictionNodes | None:
        """Return the nodes of a volume's last prediction, from this session or a saved scene."""
        return prediction_nodes.find_prediction(volumeNode)

    def prediction(self, volumeNode: Any) -> ScanPrediction:
        """Return the last prediction of a volume.

        Raises:
            InputError: if there is none, or the volume was moved since.
        """
        return prediction_nodes.read_prediction_nodes(volumeNode)

    def alignment(self, volumeNode: Any, otherNode: Any) -> ScanAlignment:
        """Return the offsets at which two volumes show the same levels; the last is remembered.

        Raises:
            InputError: as `prediction`, for either volume.
        """
        pair = [self.prediction(node) for node in (volumeNode, otherNode)]
        slices = [one.slices for one in pair]
        if self._aligned is None or self._aligned[0] != slices:
            self._aligned = slices, align_scans(*pair)
        return self._aligned[1]

    def isAligned(self, volumeNode: Any, otherNode: Any) -> bool | None:
        """Whether the voxels of two volumes were registered; None if not tried yet.

        False means that they do not look like those of one patient.

        Raises:
            InputError: as `prediction`, for either volume.
        """
        slices = [self.prediction(node).slices for node in (volumeNode, otherNode)]
        return (
            self._checked[1] if self._checked is not None and self._checked[0] == slices else None
        )

    def alignWork(self, volumeNode: Any, otherNode: Any) -> Work[ScanAlignment]:
        """Register the voxels of two localized volumes, level by level.

        Where they look like those of one patient, `alignment` gives the levels found so.

        Raises:
            InputError: as `prediction`, for either volume.
            ChildError: if the child process failed; its log is named.
        """
        pair = [self.prediction(node) for node in (volumeNode, otherNode)]
        with tempfile.TemporaryDirectory(
            prefix="CTSliceTools-", dir=slicer.app.temporaryPath
        ) as folder:
            work, files = Path(folder), []
            for node, found, name in zip(
                (volumeNode, otherNode), pair, ("one", "other"), strict=True
            ):
                scan = work / f"{name}.nrrd"
                yield from export_work(node, scan)
                files.append(work / f"{name}.json")
                write_prediction(files[-1], replace(found, source=scan), plot=False)
            result = work / "levels.json"
            yield from self.commands.work("align", *files, "-o", result)
            levels = read_alignment(result)
        slices = [one.slices for one in pair]
        self._aligned = slices, levels or align_scans(*pair)
        self._checked = slices, levels is not None
        return self._aligned[1]

    align = at_once(alignWork)

    def annotateAsPredicted(self, volumeNode: Any) -> None:
        """Make the predicted landmarks the volume's annotation, in one change, to be corrected.

        Raises:
            InputError: as `prediction`, or if the volume has no axial slices.
        """
        found = self.prediction(volumeNode).landmarks
        heights = {name: place.z_mm for name, place in found.items()}
        self.annotation.setLandmarksAtZ(volumeNode, heights)

    def removeVolume(self, volumeNode: Any) -> None:
        """Remove a volume with its landmarks and its prediction, unless it is gone already."""
        if volumeNode.GetScene() is None:
            return
        nodes = self.predictionNodes(volumeNode)
        if nodes is not None:
            prediction_nodes.remove_prediction(nodes)
        for node in (self.annotation.markupsNode(volumeNode), volumeNode):
            if node is not None:
                self.scene.RemoveNode(node)

    def _show(self, volumeNode: Any, prediction: ScanPrediction) -> PredictionNodes:
        earlier = self.predictionNodes(volumeNode)
        snapshot = Snapshot(self.scene)
        try:
            nodes = prediction_nodes.add_prediction(volumeNode, prediction)
        except BaseException:
            snapshot.restore()
            raise
        if earlier is not None:
            prediction_nodes.remove_prediction(earlier)
        return nodes
