"""Volume nodes and their slices in a Slicer scene, new nodes, and the subject hierarchy."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from numpy.typing import ArrayLike, NDArray

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import LPS_TO_RAS, ijk_to_lps
from CTLungScreeningLib.hu import LUNG_WINDOW
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.slice_stack import is_axial
from CTLungScreeningLib.reading.volume_files import raw_nrrd_work


def unique_name(scene: Any, name: str) -> str:
    """Return a name, numbered only if a node in the scene already has it.

    Slicer's `GenerateUniqueName` also numbers the names of removed nodes.
    """
    taken = scene.GetFirstNodeByName(name) is not None
    return str(scene.GenerateUniqueName(name)) if taken else name


def add_node(scene: Any, kind: str, name: str) -> Any:
    """Add a node of a kind, such as "Table", with a unique name."""
    return scene.AddNewNodeByClass(f"vtkMRML{kind}Node", unique_name(scene, name))


SHEAR_TOLERANCE = 1e-3
"""Maximum cosine of the angle between two axes of a volume."""


def ijk_to_world(volume_node: Any) -> NDArray[np.float64]:
    """Return the 4×4 matrix from voxel indices (x, y, z) to world RAS mm, with parent transforms.

    Raises:
        InputError: if the volume is under a non-linear transform, or its axes are not orthogonal in
            world space (gantry tilt, a shearing transform).
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
                "harden it on the volume in the Transforms module, or remove it, and try again."
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


def visible_volumes(scene: Any) -> list[Any]:
    """Return the scalar volumes of a scene that are not hidden from the user."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene)
    return [
        one
        for one in nodes
        if one.GetClassName() == "vtkMRMLScalarVolumeNode" and not one.GetHideFromEditors()
    ]


def has_voxels(volume_node: Any | None) -> bool:
    """Whether a volume has voxels; Slicer may add the node first."""
    image = None if volume_node is None else volume_node.GetImageData()
    return image is not None and image.GetNumberOfPoints() > 0


def export_work(volume_node: Any, path: Path) -> Work[None]:
    """Write a volume as `.nrrd` in world space, with parent transforms applied.

    Raises:
        InputError: if the node has no image, or its geometry is not supported, see `ijk_to_world`.
    """
    name = volume_node.GetName()
    if not has_voxels(volume_node):
        raise InputError(f"{name} has no image: choose another volume.")
    array = slicer.util.arrayFromVolume(volume_node)
    if array.ndim != 3:
        raise InputError(f"{name} has several values per voxel: choose a CT.")
    yield from raw_nrrd_work(array, LPS_TO_RAS @ ijk_to_world(volume_node), path)


def add_volume(image: sitk.Image, name: str) -> Any:
    """Add a 3-D image (LPS mm) to the scene as a scalar volume node."""
    return slicer.util.addVolumeFromArray(
        sitk.GetArrayViewFromImage(image),
        slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ ijk_to_lps(image)),
        name=unique_name(slicer.mrmlScene, name),
    )


def show_in_lung_window(volume_node: Any) -> None:
    """Set the display of a volume to the lung window."""
    if volume_node.GetDisplayNode() is None:
        volume_node.CreateDefaultDisplayNodes()
    display = volume_node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(LUNG_WINDOW.width, LUNG_WINDOW.level)


INSTANCE_UIDS = "DICOM.instanceUIDs"
"""Slicer's attribute of volumes from DICOM: the SOP Instance UIDs of the slices along k."""


_MIDDLES = "CTLungScreening.middles"
"""Attribute of a volume: its size, and the voxels in the middle of its first and last stored slice.

They differ from those of the volume if the gantry was tilted.
"""


def add_scan(scan: CTScan, name: str) -> Any:
    """Add a CT to the scene as a scalar volume node with its SOP Instance UIDs."""
    node = add_volume(scan.image, name)
    if scan.slices:
        node.SetAttribute(INSTANCE_UIDS, " ".join(one.sop_instance_uid for one in scan.slices))
    ends = [one.centre for one in (*scan.slices[:1], *scan.slices[-1:]) if one.centre is not None]
    if ends:
        middles = [scan.image.TransformPhysicalPointToContinuousIndex(one) for one in ends]
        node.SetAttribute(_MIDDLES, json.dumps([scan.image.GetSize(), middles]))
    return node


@dataclass(frozen=True, eq=False)
class VolumeSlices:
    """The axial slices of a volume, numbered from 0 at the feet in the volume's own geometry.

    Attributes:
        node: the scalar volume node.
        axis: the voxel axis (0 is i, 2 is k) across the slices.
        upward: whether that axis points to the head.
        size: voxels along i, j, k.
        ijk_to_ras: 4×4, to the node's RAS mm, without its parent transforms.
        uids: SOP Instance UIDs by slice number; empty if unknown.
        middles: (2, 3), the voxels in the middle of the first and the last slice along the axis.
    """

    node: Any
    axis: int
    upward: bool
    size: tuple[int, int, int]
    ijk_to_ras: NDArray[np.float64]
    uids: tuple[str, ...]
    middles: NDArray[np.float64]

    @classmethod
    def of(cls, volume_node: Any) -> "VolumeSlices":
        """Read the geometry of a volume node.

        Raises:
            InputError: if it has no image, or its slices are not axial.
        """
        name = volume_node.GetName()
        if not has_voxels(volume_node):
            raise InputError(f"{name} has no image: choose another volume.")
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
        if not upward:
            uids = uids[::-1]
        middles = middles_of_grid(size, axis)
        stored = json.loads(volume_node.GetAttribute(_MIDDLES) or "[[], []]")
        if uids and stored[0] == list(size):
            middles = np.array(stored[1])
        return cls(volume_node, axis, upward, size, ijk_to_ras, uids, middles)

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.size[self.axis]

    def centre(self, number: int) -> NDArray[np.float64]:
        """Voxel indices (i, j, k) of the middle of a slice.

        Raises:
            InputError: if the slice does not exist.
        """
        if not 0 <= number < self.count:
            raise InputError(
                f"{self.node.GetName()} has no slice {number}: choose one from 0 to "
                f"{self.count - 1}."
            )
        place = number if self.upward else self.count - 1 - number
        first, last = self.middles
        ijk = first + (last - first) * (place / max(self.count - 1, 1))
        ijk[self.axis] = place
        return np.asarray(ijk.round(6))  # as places are read from points

    def number(self, ijk: ArrayLike) -> int | None:
        """Number of the slice that contains a point (i, j, k); None above and below the volume."""
        nearest = round(float(np.asarray(ijk)[self.axis]))
        if not 0 <= nearest < self.count:
            return None
        return nearest if self.upward else self.count - 1 - nearest

    def number_at(self, world_ras: ArrayLike) -> int | None:
        """Number of the slice that contains a world point, RAS mm; None outside."""
        return self.number(self.to_ijk(self.from_world(world_ras)))

    def number_at_z(self, z_mm: float) -> int:
        """Number of the slice with its centre nearest to a world LPS z in mm.

        Raises:
            InputError: if z lies more than half a slice outside the volume.
        """
        heights = self.world_z_mm()
        half = np.abs(np.diff(heights)).max(initial=0) / 2
        if not heights.min() - half <= z_mm <= heights.max() + half:
            raise InputError(
                f"{self.node.GetName()} extends from z = {heights.min():.1f} to "
                f"{heights.max():.1f} mm, not to {z_mm:.1f} mm."
            )
        return int(np.abs(heights - z_mm).argmin())

    def world_z_mm(self) -> NDArray[np.float64]:
        """World LPS z of the slices' centres in mm, by number."""
        transform = self.node.GetParentTransformNode()
        if transform is None or transform.IsTransformToWorldLinear():
            first, last = (self.world_ras(number)[2] for number in (0, self.count - 1))
            return np.linspace(first, last, self.count)
        return np.array([self.world_ras(number)[2] for number in range(self.count)])

    def world_ras(self, number: int) -> NDArray[np.float64]:
        """Centre of a slice in world RAS mm, with parent transforms."""
        return self.to_world(self.to_ras(self.centre(number)))

    def z_mm(self, number: int) -> float:
        """LPS z of the centre of a slice in mm, without parent transforms, as in files."""
        return float(self.to_ras(self.centre(number))[2])

    def to_ras(self, ijk: ArrayLike) -> NDArray[np.float64]:
        """Convert voxel indices (i, j, k) to the node's RAS mm."""
        return np.asarray(self.ijk_to_ras @ [*np.asarray(ijk), 1])[:3]

    def to_ijk(self, ras: ArrayLike) -> NDArray[np.float64]:
        """Convert the node's RAS mm to continuous voxel indices (i, j, k)."""
        return np.linalg.solve(self.ijk_to_ras, [*np.asarray(ras), 1])[:3]

    def to_world(self, ras: ArrayLike) -> NDArray[np.float64]:
        """Convert the node's RAS mm to world RAS mm."""
        world = [0.0, 0.0, 0.0]
        self.node.TransformPointToWorld(np.asarray(ras, float).tolist(), world)
        return np.array(world)

    def from_world(self, ras: ArrayLike) -> NDArray[np.float64]:
        """Convert world RAS mm to the node's RAS mm."""
        own = [0.0, 0.0, 0.0]
        self.node.TransformPointFromWorld(np.asarray(ras, float).tolist(), own)
        return np.array(own)


def middles_of_grid(size: tuple[int, int, int], axis: int) -> NDArray[np.float64]:
    """Return the voxels in the middle of the first and last slice of a volume, (2, 3)."""
    ends = np.tile((np.array(size) - 1) / 2, (2, 1))
    ends[:, axis] = 0, size[axis] - 1
    return ends


_REFERENCED = "DICOM.ReferencedInstanceUIDs"
"""Attribute of an item: the SOP Instance UIDs of its source images."""


def place_beside(volume_node: Any, node: Any) -> None:
    """Put a node under the volume's parent in the subject hierarchy, its DICOM study if any.

    For a volume from DICOM, the node's item refers to its slices, which Slicer's DICOM export of
    segmentations needs.
    """
    scene = volume_node.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    volume = hierarchy.GetItemByDataNode(volume_node)
    if not volume:  # outside the application, items are not created automatically
        volume = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume_node)
    parent = hierarchy.GetItemParent(volume)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        item = hierarchy.CreateItem(parent, node)
    if uids := volume_node.GetAttribute(INSTANCE_UIDS):
        hierarchy.SetItemAttribute(item, _REFERENCED, uids)
