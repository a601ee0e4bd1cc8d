"""Names, colours and codes of segments, and `.seg.nrrd` files that Slicer reads as meant."""

import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from slicerio.segmentation import terminology_entry_from_string

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import LPS_TO_RAS, ijk_to_lps
from LungNoduleSegLib.results import segments
from LungNoduleSegLib.results.segments import (
    LEFT_LUNG,
    LUNG_STYLES,
    RIGHT_LUNG,
    TAG,
    fingerprint,
    nodule_style,
    write_segmentation,
)
from mrml_grids import grid, grids, masks, voxels_of, voxels_on


@pytest.fixture(scope="module")
def read_in_slicer() -> Any:
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    from CTLungScreeningSlicer.scene import mrml_host

    mrml_host.start()
    from LungNoduleSegSlicer.scene.mrml_results import read_segmentation

    return read_segmentation


@settings(max_examples=25)
@given(image=grids)
def test_slicer_reads_every_segment_where_it_was(read_in_slicer: Any, image: sitk.Image) -> None:
    lungs, nodules = masks(image)
    with TemporaryDirectory() as folder:
        file = Path(folder, "a.seg.nrrd")
        write_segmentation(file, lungs, nodules)
        found = read_in_slicer(file)
    styles = [
        *LUNG_STYLES.items(),
        (1, nodule_style(1, RIGHT_LUNG)),
        (3, nodule_style(3, LEFT_LUNG)),
    ]
    assert list(found.GetSegmentIDs()) == [style.id for _, style in styles]
    assert found.GetNumberOfLayers() == 2
    for (label, style), labels in zip(styles, (lungs, lungs, nodules, nodules), strict=True):
        segment = found.GetSegment(style.id)
        assert segment.GetName() == style.name
        np.testing.assert_allclose(segment.GetColor(), style.color)
        assert voxels_on(image, found, style.id) == voxels_of(labels, label)

    values = [
        float(v) for v in found.GetConversionParameter("Reference image geometry").split(";")[:-1]
    ]
    np.testing.assert_allclose(np.reshape(values[:16], (4, 4)), LPS_TO_RAS @ ijk_to_lps(image))
    assert values[16:] == [b for size in image.GetSize() for b in (0, size - 1)]
    assert float(found.GetConversionParameter("Smoothing factor")) == 0


def test_slicer_reads_the_terminology_and_the_tag(read_in_slicer: Any, tmp_path: Path) -> None:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    write_segmentation(tmp_path / "a.seg.nrrd", *masks(grid()))
    found = read_in_slicer(tmp_path / "a.seg.nrrd")
    entries = {}
    for segment_id in found.GetSegmentIDs():
        segment = found.GetSegment(segment_id)
        text, mark = vtk.reference(""), vtk.reference("")
        assert segment.GetTag(segment.GetTerminologyEntryTagName(), text)
        assert segment.GetTag(TAG, mark)
        entries[segment.GetName()] = terminology_entry_from_string(str(text))
        labels = vtk_to_numpy(
            segment.GetRepresentation("Binary labelmap").GetPointData().GetScalars()
        ).reshape(10, 12, 15)
        assert str(mark) == fingerprint(segment.GetName(), labels == segment.GetLabelValue())
    right, nodule = entries["Right lung"], entries["Nodule 3"]
    assert right["category"] == ["SCT", "123037004", "Anatomical Structure"]
    assert right["type"] == ["SCT", "39607008", "Lung"]
    assert right["typeModifier"] == ["SCT", "24028007", "Right"]
    assert entries["Left lung"]["typeModifier"] == ["SCT", "7771000", "Left"]
    assert nodule["category"] == ["SCT", "49755003", "Morphologically Altered Structure"]
    assert nodule["type"] == ["SCT", "27925004", "Nodule"]
    assert nodule["anatomicRegion"] == ["SCT", "39607008", "Lung"]
    assert nodule["anatomicRegionModifier"] == ["SCT", "7771000", "Left"]
    assert entries["Nodule 1"]["anatomicRegionModifier"] == ["SCT", "24028007", "Right"]


@pytest.mark.parametrize(
    ("code", "group"),
    [
        (segments.LUNG, 7155),
        (segments.NODULE, 7159),
        (segments.RIGHT, 244),
        (segments.LEFT, 244),
        (segments.ALTERED_STRUCTURE, 7150),
    ],
)
def test_codes_are_in_their_dicom_context_group(code: segments.Code, group: int) -> None:
    keywords: Any = cid_concepts[group]["SCT"]
    snomed: Any = concepts["SCT"]
    allowed = {value for keyword in keywords for value in snomed[keyword]}
    assert code.value in allowed


def test_more_than_255_nodules_and_gaps_between_ids(read_in_slicer: Any, tmp_path: Path) -> None:
    lungs, nodules = masks(grid(), nodule_ids=(1, 300))
    write_segmentation(tmp_path / "a.seg.nrrd", lungs, nodules)
    found = read_in_slicer(tmp_path / "a.seg.nrrd")
    assert found.GetNumberOfSegments() == 4
    assert voxels_on(lungs, found, "CTLungScreening_Nodule_300") == voxels_of(nodules, 300)


def test_no_nodule_and_a_missing_lung_are_still_segments(
    read_in_slicer: Any, tmp_path: Path
) -> None:
    lungs, nodules = masks(grid(), nodule_ids=())
    lungs *= sitk.Cast(lungs != LEFT_LUNG, sitk.sitkUInt8)
    write_segmentation(tmp_path / "a.seg.nrrd", lungs, nodules)
    found = read_in_slicer(tmp_path / "a.seg.nrrd")
    assert [found.GetSegment(i).GetName() for i in found.GetSegmentIDs()] == [
        "Right lung",
        "Left lung",
    ]
    assert voxels_on(lungs, found, "CTLungScreening_LeftLung") == set()
    assert voxels_on(lungs, found, "CTLungScreening_RightLung") == voxels_of(lungs, RIGHT_LUNG)


def test_nothing_is_overwritten_and_other_grids_are_refused(tmp_path: Path) -> None:
    lungs, nodules = masks(grid())
    (tmp_path / "a.seg.nrrd").write_text("mine")
    with pytest.raises(InputError, match="already holds"):
        write_segmentation(tmp_path / "a.seg.nrrd", lungs, nodules)
    assert (tmp_path / "a.seg.nrrd").read_text() == "mine"
    with pytest.raises(ValueError, match="same grid"):
        write_segmentation(tmp_path / "b.seg.nrrd", lungs, masks(grid(spacing=(1, 1, 1)))[1])
    assert [file.name for file in tmp_path.iterdir()] == ["a.seg.nrrd"]


def test_the_voxels_of_a_scan_are_not_copied_to_be_packed(tmp_path: Path) -> None:
    lungs = sitk.Image(160, 160, 160, sitk.sitkUInt8)
    write_segmentation(tmp_path / "first.seg.nrrd", lungs, lungs)  # imports what it needs
    tracemalloc.start()
    try:
        write_segmentation(tmp_path / "a.seg.nrrd", lungs, lungs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.7 * 2 * lungs.GetNumberOfPixels()


def test_a_fingerprint_knows_name_and_shape_but_no_margin() -> None:
    mask = np.random.default_rng(2).random((5, 6, 7)) < 0.5
    wide = np.pad(mask, ((3, 1), (0, 2), (4, 0)))
    assert fingerprint("Nodule 1", mask) == fingerprint("Nodule 1", wide)
    assert fingerprint("Nodule 1", mask) != fingerprint("Spiculated", mask)
    edited = mask.copy()
    edited[2, 3, 3] ^= True
    assert fingerprint("Nodule 1", mask) != fingerprint("Nodule 1", edited)
    assert fingerprint("", np.ones((2, 6, 1), bool)) != fingerprint("", np.ones((6, 2, 1), bool))
    assert fingerprint("Nodule 1", np.zeros((0, 0, 0), bool)) == fingerprint(
        "Nodule 1", np.zeros((3, 3, 3), bool)
    )
