"""Of several series the best CT of a chest is read, and the others are listed."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

import dicom_files as files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.dicom_series import list_series


def write(folder: Path, description: str, count: int = 9, step: float = 3.0, **fields: Any) -> None:
    def edit(image: Dataset, _: int) -> None:
        for keyword, value in {"SeriesDescription": description, **fields}.items():
            setattr(image, keyword, value)

    places = files.positions(step=(0, 0, step), count=count)
    files.write_series(folder / description, files.AXIAL, places, series=description, edit=edit)


@pytest.mark.parametrize(
    ("best", "other"),
    [
        ({"BodyPartExamined": "CHEST"}, {"BodyPartExamined": "HEAD", "count": 20}),
        ({"BodyPartExamined": "THORAX"}, {"BodyPartExamined": "ABDOMEN", "count": 20}),
        ({}, {"ProtocolName": "Brain routine", "count": 20}),
        ({"ProtocolName": "LUNG SCREENING"}, {"count": 20}),
        ({}, {"ImageType": ["DERIVED", "SECONDARY", "MIP"], "count": 20}),
        ({}, {"ImageType": ["DERIVED", "PRIMARY", "AVERAGE"], "count": 20}),
        ({}, {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"], "count": 20}),
        (
            {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MAT_REMOVED"], "count": 20},
        ),
        ({}, {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"], "count": 20}),
        ({}, {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "ELECTRON_DENSITY"], "count": 20}),
        ({"step": 1.25}, {"step": 5.0, "count": 20}),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f", "count": 20}),
        ({"ConvolutionKernel": "STANDARD"}, {"ConvolutionKernel": "LUNG", "count": 20}),
        ({"ConvolutionKernel": "FC08"}, {"ConvolutionKernel": "FC51", "count": 20}),
        ({"ConvolutionKernel": "Br40d"}, {"ConvolutionKernel": "Bl57d", "count": 20}),
        ({"ConvolutionKernel": ["I31f", "3"]}, {"ConvolutionKernel": ["I50f", "3"], "count": 20}),
        ({"ConvolutionKernel": "J30s"}, {"ConvolutionKernel": "J70h", "count": 20}),
        ({"count": 20}, {"count": 9}),
    ],
)
def test_the_best_chest_ct_is_taken(
    tmp_path: Path, best: dict[str, Any], other: dict[str, Any]
) -> None:
    write(tmp_path, "this", **best)
    write(tmp_path, "that", **other)
    scan = read_ct(tmp_path)
    assert scan.series is not None and scan.series.description == "this"
    assert [one.description for one in list_series(tmp_path)] == ["this", "that"]
    chosen, listed = scan.notes[:2]
    assert "(this, " in chosen and "of 2 CT series" in chosen
    assert "--series" in listed and "(that, " in listed


def test_a_description_alone_shows_what_is_derived(tmp_path: Path) -> None:
    write(tmp_path, "Chest MIP 8 mm", count=20)
    write(tmp_path, "Chest")
    assert list_series(tmp_path)[0].description == "Chest"


@pytest.mark.parametrize(
    ("chest", "other"),
    [("Thorax 1.5", "Abdomen 1.0"), ("Lung 1.25mm", "Brain 0.6"), ("Axial 2.0", "Neck 1.0")],
)
def test_what_a_series_is_called_counts_more_than_its_examination(
    tmp_path: Path, chest: str, other: str
) -> None:
    whole: dict[str, Any] = {"BodyPartExamined": "CHEST", "ProtocolName": "CAP"}
    write(tmp_path, chest, step=3.0, **whole)
    write(tmp_path, other, step=1.0, count=20, **whole)
    assert list_series(tmp_path)[0].description == chest


MAPS = (
    "VNC Chest",
    "Chest virtual non-contrast",
    "Virtual_Unenhanced Thorax",
    "MD Iodine(Water) Chest",
    "MD HAP(Water) Chest",
    "DE_Iodine_Chest",
    "Chest Z Eff",
    "Chest Eff-Z",
    "Chest Calcium map",
)


@pytest.mark.parametrize("description", MAPS)
def test_maps_of_a_material_come_last(tmp_path: Path, description: str) -> None:
    write(tmp_path, description, count=20)
    write(tmp_path, "Mono 70 keV", ImageType=["DERIVED", "PRIMARY", "AXIAL", "VMI"])
    assert list_series(tmp_path)[0].description == "Mono 70 keV"


@pytest.mark.parametrize("description", ["Water phantom", "Calcium score", "Iodine contrast"])
def test_the_name_of_a_material_alone_makes_no_map(tmp_path: Path, description: str) -> None:
    write(tmp_path, description, count=20)
    write(tmp_path, "Plain")
    assert list_series(tmp_path)[0].description == description


def test_what_else_is_there_is_said_where_the_values_are_not_hu(tmp_path: Path) -> None:
    for name in ("this", "that"):
        files.write_series(tmp_path / name, series=name, intercept=0)
    with pytest.raises(InputError, match=r"not CT in HU.* chosen of 2 .* with --series: .*\.$"):
        read_ct(tmp_path)
