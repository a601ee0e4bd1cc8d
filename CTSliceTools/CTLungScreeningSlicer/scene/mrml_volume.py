"""CT volumes into a Slicer scene and out of it: LPS files, RAS MRML; and how they are shown."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry.affine import LPS_TO_RAS, ijk_to_lps
from CTLungScreeningLib.hu import LUNG_WINDOW
from CTLungScreeningSlicer.scene.nodes import unique_name

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


def export_volume(volume_node: Any, path: Path) -> None:
    """Write a volume as `.nrrd` where it lies in the world: parent transforms are applied.

    Raises:
        InputError: if the node holds no image, or its geometry fits no image file, see
            `ijk_to_world`.
    """
    if volume_node.GetImageData() is None:
        raise InputError(f"{volume_node.GetName()} holds no image: choose another volume.")
    matrix = slicer.util.vtkMatrixFromArray(ijk_to_world(volume_node))
    in_world = slicer.vtkMRMLScalarVolumeNode()
    in_world.SetAndObserveImageData(volume_node.GetImageData())
    in_world.SetIJKToRASMatrix(matrix)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetUseCompression(False)
    storage.SetFileName(str(path))
    if not storage.WriteData(in_world):
        raise InputError(f"{volume_node.GetName()} could not be written to {path}.")


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
