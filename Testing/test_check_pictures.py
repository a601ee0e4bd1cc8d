"""Pages of examples: one row each, the mask where the nodule is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor
from typer.testing import CliRunner

from annotated_scans import chest, write_luna
from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.training_data.luna16 import prepare_luna
from LungNoduleSegLib.training_data.pictures import (
    CAPTION,
    CLOSE_UP_MM,
    COLUMNS,
    GAP,
    OUTLINE,
    ROWS,
    TILE,
    draw_pages,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("luna16")
    scans, annotations = write_luna(folder, {"1.2.3": chest(1)}, flipped=("1.2.3",))
    prepare_luna(scans, annotations, folder / "store")
    return folder / "store"


def tiles(page: Path) -> list[list[np.ndarray]]:
    pixels = np.asarray(Image.open(page).convert("RGB")).astype(int)
    rows = (len(pixels) - CAPTION) // (TILE + CAPTION + GAP)
    tops = [CAPTION + n * (TILE + CAPTION + GAP) + CAPTION for n in range(rows)]
    lefts = [n * (TILE + GAP) for n in range(len(COLUMNS))]
    return [[pixels[y : y + TILE, x : x + TILE] for x in lefts] for y in tops]


def test_each_example_has_a_row(store: Path, tmp_path: Path) -> None:
    pages = draw_pages(store, tmp_path / "pages")
    rows = [row for page in pages for row in tiles(page)]
    assert len(pages) == 2 and len(rows) == 6 > ROWS
    red = np.array(ImageColor.getrgb(OUTLINE))
    for slice_, mask, masked, close_up, seen in rows:
        white = mask[..., 0] > 128
        assert 0.0005 < white.mean() < 0.02
        np.testing.assert_array_equal(mask[..., 0], mask[..., 1])
        assert slice_[white].mean() > 200  # soft tissue in the lung window
        assert masked[white].mean() > 200 and masked[~white].mean() < 1
        for outlined in (close_up, seen):
            line = np.abs(outlined - red).sum(axis=-1) < 30
            assert line.sum() > 20
            inside = outlined[tuple(np.argwhere(line).mean(axis=0).round().astype(int))]
            assert inside.min() > 200


def test_the_close_up_is_true_to_scale(store: Path, tmp_path: Path) -> None:
    row = tiles(draw_pages(store, tmp_path)[0])[1]  # the middle of the larger nodule
    line = np.abs(row[3] - np.array(ImageColor.getrgb(OUTLINE))).sum(axis=-1) < 30
    extent = np.ptp(np.argwhere(line), axis=0) / TILE * CLOSE_UP_MM
    np.testing.assert_allclose(extent, 29.7, atol=4)  # pixels of 3 mm
    middle = np.argwhere(line).mean(axis=0) / TILE
    np.testing.assert_allclose(middle, 0.5, atol=0.06)


def test_the_command_draws_and_overwrites_nothing(store: Path, tmp_path: Path) -> None:
    call = ["check", str(store), "-o", str(tmp_path), "--progress", "none"]
    shown = CliRunner().invoke(app, call)
    assert shown.exit_code == 0 and f"2 pages: look at {tmp_path / 'page-001.png'}" in shown.output
    assert isinstance(CliRunner().invoke(app, call).exception, InputError)


def test_a_store_without_examples_is_named(tmp_path: Path) -> None:
    scans, annotations = write_luna(tmp_path, {"1.1": chest(1, ())})
    prepare_luna(scans, annotations, tmp_path / "store", empty_scans=True)
    with pytest.raises(InputError, match="no example"):
        draw_pages(tmp_path / "store", tmp_path / "pages")
