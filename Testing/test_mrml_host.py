"""The headless host is made once, and says so when slicer-core is missing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

WITHOUT_SLICER_CORE = """
import importlib.metadata, sys
version = importlib.metadata.version
def without(name):
    if name == "slicer-core":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without
from LungNoduleSegLib.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("project", ["", "raise RuntimeError('another project of this name')"])
def test_without_slicer_core_one_sentence_says_what_to_install(
    project: str, tmp_path: Path
) -> None:
    if project:
        (tmp_path / "slicer.py").write_text(project)
    (tmp_path / "scan.nii.gz").touch()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SLICER_CORE, "run", "scan.nii.gz", "-o", "out", "--scene"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "needs slicer-core, which is not installed" in done.stderr
    assert "pip install '.[host]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_second_start_returns_the_same_scene() -> None:
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    from CTLungScreeningSlicer.scene import mrml_host

    scene = mrml_host.start()
    assert mrml_host.start() is scene is slicer.mrmlScene is slicer.app.mrmlScene()
    assert slicer.modules.segmentations.logic().GetMRMLScene() is scene


@pytest.mark.parametrize(
    "name", ["W & W/O", "a  b", "山田\u3000太郎 5\u00a0mm", 'a\x01b: <1>; "%3B" ä']
)
def test_a_saved_scene_can_be_opened_whatever_the_names(name: str, tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    from CTLungScreeningSlicer.scene import mrml_host

    scene = mrml_host.start()
    scene.Clear()
    file, saved = tmp_path / "W & W.nrrd", tmp_path / "W & W.mrb"
    sitk.WriteImage(sitk.Image(2, 3, 4, sitk.sitkInt16), file)
    stored = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(file))
    assert storage.ReadData(stored)
    new = slicer.util.addVolumeFromArray(np.zeros((4, 3, 2), np.int16), name=name)
    mrml_host.save_scene(saved)
    assert stored.GetStorageNode().GetFileName() == str(file)
    assert not new.GetStorageNode().GetFileName()
    scene.Clear()
    assert scene.ReadFromMRB(str(saved))
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert len(volumes) == 2
    for volume in volumes:
        assert volume.GetName() == name.replace("\x01", " ")
        assert volume.GetImageData().GetDimensions() == (2, 3, 4)
    scene.Clear()
