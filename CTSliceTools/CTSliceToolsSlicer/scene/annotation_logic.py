"""Annotation of CT volumes in a Slicer scene, in Slicer and on slicer-core alike."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene import mrml_host
from CTLungScreeningSlicer.scene.history import Change, History, Restore
from CTLungScreeningSlicer.scene.mrml_volume import VolumeSlices
from CTSliceToolsLib.dataset.annotation import SliceName, from_head_to_feet
from CTSliceToolsSlicer.scene import landmark_points
from CTSliceToolsSlicer.scene import landmark_points as annotation_files
from CTSliceToolsSlicer.scene.landmark_points import Places


@dataclass(frozen=True)
class LandmarkSlice:
    """The slice that shows a landmark.

    Attributes:
        number: from 0 at the feet.
        z_mm: LPS z of its centre in the world.
        sop_instance_uid: of the DICOM instance; empty for other volumes.
    """

    number: int
    z_mm: float
    sop_instance_uid: str


class AnnotationLogic:
    """Sets, moves and removes the landmarks of volumes; each change can be undone.

    The landmarks of a volume are the control points of its markups node
    (`landmark_points`), which belong to the scene and are saved with it: moved by hand, they count
    where they are. No method looks at voxels, so each takes milliseconds.
    """

    def __init__(self) -> None:
        self.scene = mrml_host.start()
        self._histories: dict[Any, History] = {}

    def slices(self, volumeNode: Any) -> VolumeSlices:
        """Return the numbers, places and DICOM instances of a volume's slices.

        Raises:
            InputError: if it holds no image or no axial slices.
        """
        return VolumeSlices.of(volumeNode)

    def markupsNode(self, volumeNode: Any) -> Any:
        """Return the markups node with the landmarks of a volume; None if it has none yet."""
        return landmark_points.find_points(volumeNode)

    def useMarkups(self, volumeNode: Any, markupsNode: Any) -> tuple[str, ...]:
        """Make the landmarks of a volume those of a markups node, by their labels, in one change.

        They lie where its control points lie in the world. The node itself is not changed.

        Returns:
            The names of the points left out: they have not the name of a landmark, or lie above or
            below the volume.

        Raises:
            InputError: if two points have the name of the same landmark, or all are left out;
                nothing is changed then.
        """
        slices = self.slices(volumeNode)
        new, left_out = landmark_points.find_places(markupsNode, slices)
        self._change(slices, lambda places: new)
        return left_out

    def saveMarkups(self, volumeNode: Any, file: Path) -> None:
        """Write the landmarks of a volume as a `.mrk.json` file, where they lie in the world.

        Raises:
            InputError: if there are none, or the file cannot be written.
        """
        node = self.markupsNode(volumeNode)
        if node is None:
            raise InputError(f"{volumeNode.GetName()} has no landmarks to save: set one first.")
        self._places(self.slices(volumeNode))
        landmark_points.write_markups(node, file)

    def loadMarkups(self, volumeNode: Any, file: Path) -> tuple[str, ...]:
        """Make the landmarks of a volume those of a `.mrk.json` file; see `useMarkups`.

        Raises:
            InputError: if it is not such a file, or as `useMarkups`.
        """
        return self.useMarkups(volumeNode, landmark_points.read_markups(file))

    def landmarks(self, volumeNode: Any) -> dict[str, LandmarkSlice]:
        """Return the slice of each landmark that is set, from head to feet.

        A point that was moved out of the volume does not count.
        """
        slices = self.slices(volumeNode)
        numbers = self._numbers(slices)
        return {
            name: LandmarkSlice(
                numbers[name],
                float(slices.world_ras(numbers[name])[2]),
                slices.uids[numbers[name]] if slices.uids else "",
            )
            for name in from_head_to_feet(volumeNode.GetName(), numbers)
        }

    def contradiction(self, volumeNode: Any) -> str | None:
        """Return a sentence on a wrong order of the landmarks, "" if it is correct."""
        slices = self.slices(volumeNode)
        try:
            annotation_files.numbered(slices, self._numbers(slices))
        except InputError as error:
            return str(error)
        return None

    def setLandmark(self, volumeNode: Any, landmark: str, number: int) -> None:
        """Set a landmark at a slice, or move it there. See `setLandmarks`."""
        self.setLandmarks(volumeNode, {landmark: number})

    def setLandmarks(self, volumeNode: Any, numbers: Mapping[str, int]) -> None:
        """Set landmarks at slices, or move them there, in one change.

        Args:
            volumeNode: gets a markups node if it has none.
            numbers: landmark → number of the slice, from 0 at the feet.

        Raises:
            InputError: if there is no such landmark or slice; nothing is changed then.
        """
        slices = self.slices(volumeNode)
        new = _centres(slices, numbers)
        self._change(slices, lambda places: {**places, **new})

    def setLandmarksAtZ(self, volumeNode: Any, z_mm: Mapping[str, float]) -> None:
        """Set landmarks at the slices nearest to these LPS z of the world in mm, in one change.

        Raises:
            InputError: if there is no such landmark, or z is outside the volume.
        """
        slices = self.slices(volumeNode)
        self.setLandmarks(volumeNode, {name: slices.number_at_z(z) for name, z in z_mm.items()})

    def removeLandmarks(self, volumeNode: Any, landmarks: Iterable[str]) -> None:
        """Remove landmarks, in one change; those that are not set do not matter."""
        gone = set(landmarks)
        self._change(
            self.slices(volumeNode),
            lambda places: {name: ijk for name, ijk in places.items() if name not in gone},
        )

    def canUndo(self, volumeNode: Any) -> bool:
        """Whether there is a change of the volume's landmarks to undo."""
        return self._history(volumeNode).canUndo

    def canRedo(self, volumeNode: Any) -> bool:
        """Whether a change of the volume's landmarks was undone."""
        return self._history(volumeNode).canRedo

    def undo(self, volumeNode: Any) -> None:
        """Undo the last change of a volume's landmarks, if there is one.

        Changes from before the volume was cropped, resampled or flipped are forgotten.

        Raises:
            InputError: if the volume has no axial slices.
        """
        self._places(self.slices(volumeNode))
        self._history(volumeNode).undo()

    def redo(self, volumeNode: Any) -> None:
        """Redo the change that was undone last, if there is one; see `undo`."""
        self._places(self.slices(volumeNode))
        self._history(volumeNode).redo()

    def saveAnnotation(
        self,
        volumeNode: Any,
        file: Path,
        files: Mapping[str, Path] | None = None,
        there: Mapping[str, SliceName] | None = None,
    ) -> dict[str, SliceName]:
        """Write the landmarks of a volume as an annotation file; one that is there is replaced.

        Args:
            volumeNode: of a DICOM series, or any other.
            file: to write, such as `annotation.json` in the folder of the series.
            files: SOP Instance UID → DICOM file, of all slices. With it the annotation names
                files; for None, or where two of them have the same name, it gives slice numbers.
            there: what `file`, if there is one, is to hold before; None for any annotation.

        Returns:
            What it holds now: landmark → slice, from head to feet.

        Raises:
            InputError: if the landmarks contradict anatomy, a file is missing or not the slice
                that it should be, the volume no longer has the slices of `files`, or `file` is
                not an annotation, was changed by somebody else, or cannot be written.
        """
        slices = self.slices(volumeNode)
        return annotation_files.write_numbers(slices, self._numbers(slices), file, files, there)

    def loadAnnotation(
        self, volumeNode: Any, file: Path, files: Mapping[str, Path] | None = None
    ) -> None:
        """Make the landmarks of a volume those of an annotation file, in one change.

        Args:
            volumeNode: which the annotation is of.
            file: to read.
            files: SOP Instance UID → DICOM file, where the files are not beside `file`.

        Raises:
            InputError: if the file is not an annotation of this volume or contradicts anatomy;
                nothing is changed then.
        """
        slices = self.slices(volumeNode)
        new = _centres(slices, annotation_files.read_numbers(slices, file, files))
        self._change(slices, lambda places: new)

    def _numbers(self, slices: VolumeSlices) -> dict[str, int]:
        """Landmark → number of its slice, of those that lie in the volume."""
        numbers = {name: slices.number(ijk) for name, ijk in self._places(slices).items()}
        return {name: number for name, number in numbers.items() if number is not None}

    def _places(self, slices: VolumeSlices) -> Places:
        node = self.markupsNode(slices.node)
        if node is None:
            return {}
        if landmark_points.follow(node, slices):
            self._histories.pop(node, None)
        return landmark_points.read_places(node, slices)

    def _change(self, slices: VolumeSlices, change: Callable[[Places], Places]) -> None:
        before = self._places(slices)
        after = change(before)
        if after == before:
            return
        node = self.markupsNode(slices.node) or landmark_points.add_points(slices.node)
        landmark_points.write_places(node, slices, after)
        history = self._histories.setdefault(node, History(self.scene))
        history.remember(Change(self._restore(slices.node, before)))

    def _history(self, volumeNode: Any) -> History:
        """The history of a volume's markups node; of those that left the scene none is kept."""
        for node in [node for node in self._histories if node.GetScene() is None]:
            del self._histories[node]
        return self._histories.get(self.markupsNode(volumeNode)) or History(self.scene)

    def _restore(self, volumeNode: Any, places: Places) -> Restore:
        """Return a function that restores all landmarks of a volume."""

        def restore() -> Restore:
            slices = self.slices(volumeNode)
            now = self._places(slices)
            landmark_points.write_places(self.markupsNode(volumeNode), slices, places)
            return self._restore(volumeNode, now)

        return restore


def _centres(
    slices: VolumeSlices, numbers: Mapping[str, int]
) -> dict[str, tuple[float, float, float]]:
    from_head_to_feet(slices.node.GetName(), numbers)
    return {name: tuple(slices.centre(number).tolist()) for name, number in numbers.items()}
