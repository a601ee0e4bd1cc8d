"""A saved scene, drawn by Slicer's own views, shows lungs and nodule where they are."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.results.reading import SEGMENTATION, TABLE
from LungNoduleSegLib.results.segments import LUNG_STYLES, write_segmentation

pytest.importorskip("slicer", reason="slicer-core is not installed")

from LungNoduleSegSlicer.scene.saving_logic import write_scene
from mrml_grids import nodule_row

SCRIPT = Path(__file__).with_name("slice_views.py")

PROBE = """
import vtk
window = vtk.vtkRenderWindow()
window.SetOffScreenRendering(True)
window.AddRenderer(vtk.vtkRenderer())
window.Render()
print(window.ReportCapabilities())
"""


@pytest.fixture(scope="session")
def offscreen() -> None:
    """Skip where nothing can be rendered: EGL with a driver is missing."""
    environment = os.environ | {"VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow"}
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, env=environment, check=False
    )
    if probe.returncode or "OpenGL version" not in probe.stdout:
        pytest.skip("no EGL: apt-get install libegl1 libgl1-mesa-dri")


@pytest.mark.usefixtures("offscreen")
def test_views_of_a_reopened_scene(tmp_path: Path) -> None:
    lungs, nodules = np.zeros((2, 40, 60, 80), np.uint8)
    lungs[5:35, 10:50, 8:36] = RIGHT_LUNG
    lungs[5:35, 10:50, 44:72] = LEFT_LUNG
    nodules[18:24, 36:44, 52:62] = 1

    def image(array: NDArray[np.generic]) -> sitk.Image:
        made = sitk.GetImageFromArray(array)
        made.SetSpacing((4, 4, 6))
        made.SetOrigin((-160, -120, -700))
        return sitk.DICOMOrient(made, "PIR")

    hu = image(np.where(lungs > 0, -850, 40).astype(np.int16))
    write_segmentation(tmp_path / SEGMENTATION, image(lungs), image(nodules))
    write_nodules_csv(tmp_path / TABLE, [nodule_row(image(nodules), 1)])
    write_scene(tmp_path / "scene.saving", hu, tmp_path)
    subprocess.run([sys.executable, SCRIPT, tmp_path / "scene.saving", tmp_path], check=True)

    def near(name: str, color: tuple[float, float, float]) -> tuple[float, float]:
        """Give the centre, column and row, of what has the hue of `color`."""
        picture = np.asarray(Image.open(tmp_path / f"{name}.png"), float) / 255
        tint = picture - picture.mean(axis=-1, keepdims=True)
        wanted = np.array(color) - np.mean(color)
        cosine = tint @ wanted / (np.linalg.norm(tint, axis=-1) * np.linalg.norm(wanted) + 1e-9)
        rows, columns = np.nonzero((cosine > 0.97) & (np.linalg.norm(tint, axis=-1) > 0.03))
        assert len(rows) > 200, f"{name} shows nothing of that colour"
        return columns.mean(), rows.mean()

    right, left = (LUNG_STYLES[side].color for side in (RIGHT_LUNG, LEFT_LUNG))
    nodule, through_lung = (230 / 255, 159 / 255, 0), (0.62, 0.6, 0.14)
    # Views face the patient's front, or the feet from below: their right is on our left.
    for view in ("axial", "coronal", "surfaces"):
        assert near(view, right)[0] < 300 < near(view, left)[0], view
        hue = through_lung if view == "surfaces" else nodule
        assert near(view, hue)[0] > 300, view
    assert near("axial", nodule)[1] > near("axial", left)[1]  # the nodule lies behind the middle
    assert near("sagittal", nodule)[0] > near("sagittal", left)[0]
