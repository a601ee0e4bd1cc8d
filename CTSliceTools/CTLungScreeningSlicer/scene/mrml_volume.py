"""Volumes and other nodes in a Slicer scene: new ones, their slices, the subject hierarchy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from numpy.typing import ArrayLike, NDArray

from CTLungScreeningLib.child_process import Work, complete
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import LPS_TO_RAS, ijk_to_lps
from CTLungScreeningLib.hu import LUNG_WINDOW
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.slice_stack import is_axial
from CTLungScreeningLib.reading.volume_files import raw_nrrd_work


def unique_name(scene: Any, name: str) -> str:
    """Give a name, with a number behind it only if a node of the scene has it.

    Slicer's own `GenerateUniqueName` also numbers the names of nodes that are gone.
    """
    taken = scene.GetFirstNodeByName(name) is not None
    return str(scene.GenerateUniqueName(name)) if taken else name


def add_node(scene: Any, kind: str, name: str) -> Any:
    """Add a node of a kind, such as "Table", with a name of its own."""
    return scene.AddNewNodeByClass(f"vtkMRML{kind}Node", unique_name(scene, name))


SHEAR_TOLERANCE = 1e-3
"""How far from a right angle, as a cosine, two axes of a volume may be."""


def ijk_to_world(volume_node: Any) -> NDArray[np.float64]:
    """Give the 4×4 matrix from voxel indices (x, y, z) to world RAS mm, parent transforms included.

    Raises:
        InputError: if the volume is under a transform that is not linear, or its axes are not at
            right angles in the world (gantry tilt, a shearing transform).
    """
    name = volume_node.GetName()
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    transform = volume_node.GetParentTransformNode()
    if transform is not None:
        if not transform.IsTransformToWorldLinear():
            raise InputError(
                f"{name} is under the non-linear transform {transform.GetName()}: "
                "harden it on the volume in the Transforms module, or take it off, and try again."
            )
        transform.GetMatrixTransformToWorld(matrix)
        ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix) @ ijk_to_ras
    axes = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise InputError(
            f"The axes of {name} are not at right angles: "
            "resample it in the module Resample Scalar/Vector/DWI Volume and try again."
        )
    return ijk_to_ras


def has_voxels(volume_node: Any | None) -> bool:
    """Tell whether there is a volume with its voxels: Slicer may add the node before them."""
    image = None if volume_node is None else volume_node.GetImageData()
    return image is not None and image.GetPointData().GetScalars() is not None


def export_work(volume_node: Any, path: Path) -> Work[None]:
    """Write a volume as `.nrrd` where it lies in the world: parent transforms are applied.

    Raises:
        InputError: if the node holds no image, or its geometry fits no image file, see
            `ijk_to_world`.
    """
    name = volume_node.GetName()
    if not has_voxels(volume_node):
        raise InputError(f"{name} holds no image: choose another volume.")
    array = slicer.util.arrayFromVolume(volume_node)
    if array.ndim != 3:
        raise InputError(f"{name} holds several values a voxel: choose a CT.")
    yield from raw_nrrd_work(array, LPS_TO_RAS @ ijk_to_world(volume_node), path)


def export_volume(volume_node: Any, path: Path) -> None:
    """Do as `export_work` at once."""
    complete(export_work(volume_node, path))


def add_volume(image: sitk.Image, name: str) -> Any:
    """Add a 3-D image (LPS mm) to the scene as a scalar volume node."""
    return slicer.util.addVolumeFromArray(
        sitk.GetArrayViewFromImage(image),
        slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ ijk_to_lps(image)),
        name=unique_name(slicer.mrmlScene, name),
    )


def show_in_lung_window(volume_node: Any) -> None:
    """Have a volume shown in the lung window, wherever it is."""
    if volume_node.GetDisplayNode() is None:
        volume_node.CreateDefaultDisplayNodes()
    display = volume_node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(LUNG_WINDOW.width, LUNG_WINDOW.level)


INSTANCE_UIDS = "DICOM.instanceUIDs"
"""Attribute that Slicer gives volumes from DICOM: the SOP Instance UIDs of the slices along k."""


def add_scan(scan: CTScan, name: str) -> Any:
    """Add a CT to the scene as a scalar volume node that tells the instances it was read from."""
    node = add_volume(scan.image, name)
    if scan.slices:
        node.SetAttribute(INSTANCE_UIDS, " ".join(one.sop_instance_uid for one in scan.slices))
    return node


@dataclass(frozen=True, eq=False)
class VolumeSlices:
    """The slices across that voxel axis of a volume which runs along the patient's.

    They are numbered from 0 at the feet, by the volume's own geometry. No voxel is looked at.

    Attributes:
        node: the scalar volume node.
        axis: the voxel axis (0 is i, 2 is k) along which the slices lie.
        upward: whether that axis runs to the head.
        size: voxels along i, j, k.
        ijk_to_ras: 4×4, to the node's own RAS mm, without its parent transforms.
        uids: SOP Instance UIDs by the slices' number; empty if the node does not tell them.
    """

    node: Any
    axis: int
    upward: bool
    size: tuple[int, int, int]
    ijk_to_ras: NDArray[np.float64]
    uids: tuple[str, ...]

    @classmethod
    def of(cls, volume_node: Any) -> "VolumeSlices":
        """Look at a volume node.

        Raises:
            InputError: if it holds no image, or its slices are not axial.
        """
        name = volume_node.GetName()
        if not has_voxels(volume_node):
            raise InputError(f"{name} holds no image: choose another volume.")
        matrix = vtk.vtkMatrix4x4()
        volume_node.GetIJKToRASMatrix(matrix)
        ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
        axes = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
        axis = int(np.abs(axes[2]).argmax())
        if not is_axial(axes[:, axis]):
            raise InputError(
                f"{name} has no axial slices, its axes are too oblique: resample it in the module "
                "Resample Scalar/Vector/DWI Volume."
            )
        upward = bool(axes[2, axis] > 0)
        size = volume_node.GetImageData().GetDimensions()
        uids = tuple((volume_node.GetAttribute(INSTANCE_UIDS) or "").split())
        if axis != 2 or len(uids) != size[2]:
            uids = ()
        return cls(volume_node, axis, upward, size, ijk_to_ras, uids if upward else uids[::-1])

    @property
    def count(self) -> int:
        """How many slices there are."""
        return self.size[self.axis]

    def centre(self, number: int) -> NDArray[np.float64]:
        """Voxel indices (i, j, k) of the middle of a slice.

        Raises:
            InputError: if there is no such slice.
        """
        if not 0 <= number < self.count:
            raise InputError(
                f"{self.node.GetName()} has no slice {number}: choose one from 0 to "
                f"{self.count - 1}."
            )
        ijk = (np.array(self.size) - 1) / 2
        ijk[self.axis] = number if self.upward else self.count - 1 - number
        return ijk

    def number(self, ijk: ArrayLike) -> int | None:
        """Number of the slice that a point (i, j, k) lies in; None above and below the volume."""
        nearest = round(float(np.asarray(ijk)[self.axis]))
        if not 0 <= nearest < self.count:
            return None
        return nearest if self.upward else self.count - 1 - nearest

    def number_at(self, world_ras: ArrayLike) -> int | None:
        """Number of the slice that a point of the world lies in, RAS mm; None outside."""
        return self.number(self.to_ijk(self.from_world(world_ras)))

    def number_at_z(self, z_mm: float) -> int:
        """Number of the slice whose centre is nearest to an LPS z of the world in mm.

        Raises:
            InputError: if z lies more than half a slice outside the volume.
        """
        heights = self.world_z_mm()
        half = np.abs(np.diff(heights)).max(initial=0) / 2
        if not heights.min() - half <= z_mm <= heights.max() + half:
            raise InputError(
                f"{self.node.GetName()} reaches from z = {heights.min():.1f} to "
                f"{heights.max():.1f} mm, not to {z_mm:.1f} mm."
            )
        return int(np.abs(heights - z_mm).argmin())

    def world_z_mm(self) -> NDArray[np.float64]:
        """LPS z in the world of the slices' centres in mm, by number."""
        transform = self.node.GetParentTransformNode()
        if transform is None or transform.IsTransformToWorldLinear():
            first, last = (self.world_ras(number)[2] for number in (0, self.count - 1))
            return np.linspace(first, last, self.count)
        return np.array([self.world_ras(number)[2] for number in range(self.count)])

    def world_ras(self, number: int) -> NDArray[np.float64]:
        """Where the middle of a slice lies in the world, RAS mm; parent transforms included."""
        return self.to_world(self.to_ras(self.centre(number)))

    def z_mm(self, number: int) -> float:
        """LPS z of the middle of a slice in mm, without parent transforms, as files give it."""
        return float(self.to_ras(self.centre(number))[2])

    def to_ras(self, ijk: ArrayLike) -> NDArray[np.float64]:
        """Voxel indices (i, j, k) to the node's own RAS mm."""
        return np.asarray(self.ijk_to_ras @ [*np.asarray(ijk), 1])[:3]

    def to_ijk(self, ras: ArrayLike) -> NDArray[np.float64]:
        """The node's own RAS mm to voxel indices (i, j, k), fractions included."""
        return np.linalg.solve(self.ijk_to_ras, [*np.asarray(ras), 1])[:3]

    def to_world(self, ras: ArrayLike) -> NDArray[np.float64]:
        """The node's own RAS mm to those of the world."""
        world = [0.0, 0.0, 0.0]
        self.node.TransformPointToWorld(np.asarray(ras, float).tolist(), world)
        return np.array(world)

    def from_world(self, ras: ArrayLike) -> NDArray[np.float64]:
        """RAS mm of the world to the node's own."""
        own = [0.0, 0.0, 0.0]
        self.node.TransformPointFromWorld(np.asarray(ras, float).tolist(), own)
        return np.array(own)


_REFERENCED = "DICOM.ReferencedInstanceUIDs"
"""Attribute of an item: the SOP Instance UIDs that its data were made of."""


def place_beside(volume_node: Any, node: Any) -> None:
    """Put a node under the volume's parent in the subject hierarchy: its DICOM study, if any.

    If the volume is from DICOM, the node's item names its slices, as Slicer's DICOM export of
    segmentations wants it.
    """
    scene = volume_node.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    volume = hierarchy.GetItemByDataNode(volume_node)
    if not volume:  # outside the application items do not come by themselves
        volume = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume_node)
    parent = hierarchy.GetItemParent(volume)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        item = hierarchy.CreateItem(parent, node)
    if uids := volume_node.GetAttribute(INSTANCE_UIDS):
        hierarchy.SetItemAttribute(item, _REFERENCED, uids)
