"""Outlines and ratings of LIDC-IDRI, and what the radiologists agree on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from lidc_outlines import outlined_nodules
from LungNoduleSegLib.training_data.lidc_idri import (
    CHARACTERISTICS,
    consensus_labels,
    consensus_nodules,
    find_lidc_xml,
    finding_mask,
    read_lidc_xml,
)

ORIGIN, SPACING, SIZE = (-10.0, 5.0, -100.0), (0.7, 0.7, 2.5), (40, 32, 9)
HEAD = (
    '<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader>'
    "<SeriesInstanceUid>1.2.3</SeriesInstanceUid></ResponseHeader>"
)
SESSION = "<readingSession>{}</readingSession>"
FOOT = "</LidcReadMessage>"


def scan() -> sitk.Image:
    image = sitk.Image(SIZE, sitk.sitkInt16)
    image.SetOrigin(ORIGIN)
    image.SetSpacing(SPACING)
    return image


def roi(k: int, points: Sequence[Sequence[int]], inclusion: bool = True) -> str:
    edges = "".join(
        f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points
    )
    z = ORIGIN[2] + k * SPACING[2]
    return (
        f"<roi><imageZposition>{z:.6f} </imageZposition>"
        f"<inclusion>{str(inclusion).upper()}</inclusion>{edges}</roi>"
    )


def nodule(*rois: str, malignancy: int | None = 4) -> str:
    ratings = ""
    if malignancy is not None:
        marks = "".join(f"<{name}>{malignancy}</{name}>" for name in CHARACTERISTICS)
        ratings = f"<characteristics>{marks}</characteristics>"
    return (
        f"<unblindedReadNodule><noduleID>N</noduleID>{ratings}{''.join(rois)}</unblindedReadNodule>"
    )


def border(region: np.ndarray) -> list[list[int]]:
    """Pixels just outside a region (y, x), in order around it, as LIDC-IDRI's outlines run."""
    edge = ndimage.binary_dilation(region) & ~region
    start = np.argwhere(edge)[0]
    steps = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]
    line, here, came = [start], start, 0
    while True:
        for turn in range(8):
            direction = (came + 5 + turn) % 8
            there = here + steps[direction]
            if np.all((there >= 0) & (there < edge.shape)) and edge[tuple(there)]:
                break
        here, came = there, direction
        if np.array_equal(here, start):
            return [[int(x), int(y)] for y, x in line]
        line.append(here)


def square(left: int, top: int, side: int) -> list[list[int]]:
    """The outline of a square of `side` pixels whose first is (left, top)."""
    region = np.zeros(SIZE[1::-1], bool)
    region[top : top + side, left : left + side] = True
    return border(region)


def write(folder: Path, *sessions: str) -> Path:
    file = folder / "reading.xml"
    file.write_text(HEAD + "".join(SESSION.format(one) for one in sessions) + FOOT)
    return file


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), radius=st.floats(2.0, 9.0))
def test_the_line_itself_is_outside_the_nodule(
    tmp_path_factory: pytest.TempPathFactory, seed: int, radius: float
) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: SIZE[1], : SIZE[0]]
    angle = np.arctan2(y - 15.0, x - 20.0)
    lobes = 1 + 0.2 * np.sin(3 * angle + rng.uniform(0, 6))
    region = np.hypot(y - 15.0, x - 20.0) <= radius * lobes
    region = ndimage.binary_fill_holes(ndimage.binary_opening(region))
    edge = ndimage.binary_dilation(region) & ~region
    assume(label(region).max() == 1)
    line = border(region)
    assume(len(line) == edge.sum())  # no pixel of the edge lies within the line
    file = write(tmp_path_factory.mktemp("xml"), nodule(roi(4, line)))
    labels = sitk.GetArrayFromImage(outlined_nodules(file, scan(), 1))
    np.testing.assert_array_equal(labels[4] == 1, region)
    assert not labels[[0, 1, 2, 3, 5, 6, 7, 8]].any()


def test_a_hole_and_its_line_are_cut_out(tmp_path: Path) -> None:
    outer, hole = square(8, 8, 15), square(13, 13, 3)
    file = write(tmp_path, nodule(roi(4, outer), roi(4, hole, inclusion=False), roi(5, outer)))
    labels = sitk.GetArrayFromImage(outlined_nodules(file, scan(), 1))
    expected = np.zeros(SIZE[1::-1], bool)
    expected[8:23, 8:23] = True
    np.testing.assert_array_equal(labels[5] == 1, expected)
    expected[13:16, 13:16] = False
    expected[tuple(np.array(hole).T[::-1])] = False
    np.testing.assert_array_equal(labels[4] == 1, expected)


def test_radiologists_are_counted_and_their_ratings_kept(tmp_path: Path) -> None:
    small = nodule(roi(2, [[30, 20]]), malignancy=None)
    other = (
        "<nonNodule><nonNoduleID>X</nonNoduleID><imageZposition>-90.0</imageZposition>"
        "<locus><xCoord>12</xCoord><yCoord>3</yCoord></locus></nonNodule>"
    )
    file = write(
        tmp_path,
        nodule(roi(4, square(8, 8, 6)), malignancy=5) + small,
        nodule(roi(4, square(10, 8, 6)), malignancy=3) + other,
        # one radiologist in two pieces, which the others join
        nodule(roi(4, square(8, 8, 2)), malignancy=2)
        + nodule(roi(4, square(13, 8, 2)), malignancy=1),
        nodule(roi(7, square(28, 20, 3))),
    )
    readings = read_lidc_xml(file)
    assert readings.series_instance_uid == "1.2.3"
    assert [len(reading.nodules) for reading in readings.readings] == [2, 1, 2, 1]
    assert not readings.readings[0].nodules[1].outlined
    (point,) = readings.readings[1].others[0].contours
    assert (point.points.tolist(), point.z_mm) == ([[12, 3]], -90.0)
    nodules = consensus_nodules(readings, scan())
    assert [nodule.readers for nodule in nodules] == [3, 1]
    assert sorted(rating["malignancy"] for rating in nodules[0].ratings) == [1, 2, 3, 5]
    one, two, three = (
        sitk.GetArrayFromImage(consensus_labels(nodules, scan(), n))[4] == 1 for n in (1, 2, 3)
    )
    assert one[8:14, 8:16].all() and one.sum() == 48
    assert two[8:14, 10:14].all() and two[8:10, 8:10].all() and two[8:10, 13:15].all()
    assert two.sum() == 24 + 4 + 2
    assert three.sum() == 2 and three[8:10, 13].all()
    assert sitk.GetArrayFromImage(consensus_labels(nodules, scan(), 2))[7].max() == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_readings_are_found_in_any_encoding_and_spelling(tmp_path: Path, encoding: str) -> None:
    file = write(tmp_path, nodule(roi(4, square(5, 6, 7))))
    name = encoding.removesuffix("-sig")
    text = file.read_text().replace('version="1.0"', f'version="1.0" encoding="{name}"')
    (tmp_path / "OTHER.XML").write_bytes(text.encode(encoding))
    found = find_lidc_xml(tmp_path)
    assert {one.name for one in found} == {"reading.xml", "OTHER.XML"}
    one, other = map(read_lidc_xml, found)
    assert one.series_instance_uid == other.series_instance_uid
    assert len(one.readings[0].nodules) == len(other.readings[0].nodules) == 1


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    def refusal(text: str) -> str:
        file = tmp_path / "reading.xml"
        file.write_text(text)
        with pytest.raises(InputError) as error:
            outlined_nodules(file, scan(), 1)
        return str(error.value)

    def session(body: str) -> str:
        return HEAD + SESSION.format(body) + FOOT

    assert "no slice" in refusal(session(nodule(roi(20, square(8, 8, 3)))))
    between = roi(4, square(8, 8, 3)).replace("-90.0", "-88.8")
    assert "no slice" in refusal(session(nodule(between)))
    assert "outside the image" in refusal(session(nodule(roi(4, [[38, 5], [41, 5], [40, 9]]))))
    assert "cannot be read" in refusal(HEAD)
    assert "cannot be read" in refusal(
        session(nodule("<roi><imageZposition>x</imageZposition></roi>"))
    )
    assert "cannot be read" in refusal(session(nodule(roi(4, [[10**30, 5]]))))
    assert "cannot be read" in refusal(session(nodule(between.replace("-88.8", "inf"))))
    assert "cannot be read" in refusal("<?xml version='1.0' encoding='none'?><LidcReadMessage/>")
    assert "names no series" in refusal("<LidcReadMessage/>")
    radiograph = "<IdriReadMessage xmlns='http://www.nih.gov'><ResponseHeader/></IdriReadMessage>"
    assert "not a reading of a CT" in refusal(radiograph)


def test_the_real_outlines_agree_with_the_majority_mask(shared_data: Path) -> None:
    folder = shared_data / "LIDC-IDRI-0001"
    image = read_ct(folder).image
    majority = sitk.Resample(
        sitk.ReadImage(shared_data / "LIDC-IDRI-0001_nodules_ge2of4readers.nrrd"),
        image,
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
        0,
    )
    found = outlined_nodules(folder / "069.xml", image, 2)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(found) > 0, sitk.GetArrayFromImage(majority) > 0
    )
    (nodule,) = consensus_nodules(read_lidc_xml(folder / "069.xml"), image)
    assert nodule.readers == 4
    assert [rating["malignancy"] for rating in nodule.ratings] == [5, 5, 5, 4]
    reading = read_lidc_xml(folder / "069.xml").readings[0]
    assert [one.outlined for one in reading.nodules] == [True, False, False, False]
    box, mask = finding_mask(reading.nodules[0], image)
    assert mask.shape == tuple(part.stop - part.start for part in box)
