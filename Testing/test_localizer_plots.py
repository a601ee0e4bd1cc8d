"""Plots of localizers: long names fit in, and names of any kind appear as they are."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from coded_scans import coded_volume, upright, write_coded_series
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTSliceToolsLib.localizer.evaluation import Evaluation, ScanErrors, Way
from CTSliceToolsLib.localizer.plots import plot_evaluation, plot_prediction
from CTSliceToolsLib.localizer.prediction import predict_scan


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles and labels of all plots that the test draws which reach beyond the picture."""
    texts: list[str] = []
    save = Figure.savefig

    def saved(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        dpi = figure.dpi
        figure.set_dpi(options["dpi"])
        for text in figure.findobj(Text):
            place = text.get_window_extent()
            if len(text.get_text()) > 20 and not 0 <= place.x0 <= place.x1 <= figure.bbox.width:
                texts.append(text.get_text())
        figure.set_dpi(dpi)

    monkeypatch.setattr(Figure, "savefig", saved)
    return texts


@pytest.mark.parametrize("letter", ["9", "W"])
def test_titles_of_a_prediction_fit_in(
    reader: Path, tmp_path: Path, outside: list[str], letter: str
) -> None:
    write_coded_series(tmp_path / "dicom")
    found = predict_scan(read_ct(tmp_path / "dicom"), reader)
    assert found.series is not None
    series = replace(found.series, series_instance_uid="1." + "9" * 62)
    named = replace(found, source=Path(letter * 64), series=series)
    plot_prediction(tmp_path / "scan.png", named)
    assert outside == []


def test_long_names_of_models_and_scans_fit_in(tmp_path: Path, outside: list[str]) -> None:
    z_mm, truth = np.linspace(-300, 0, 9), np.linspace(0.4, 0.1, 9)
    errors = [
        ScanErrors(f"{n:064}", way, True, z_mm, truth, truth, np.ones(9), {"C7": 1.0})
        for n in range(2)
        for way in Way
    ]
    plot_evaluation(tmp_path, [Evaluation(f"{n:064}", tuple(errors)) for n in range(3)])
    assert outside == []


@pytest.mark.parametrize("name", ["CT ${ID}_${DATE}", "a$_b$", "患者01"])
def test_a_plot_names_the_scan_as_it_is(reader: Path, tmp_path: Path, name: str) -> None:
    found = predict_scan(CTScan(coded_volume(upright()), Path(name)), reader)
    with warnings.catch_warnings(action="error"):
        plot_prediction(tmp_path / "scan.png", found)
    assert (tmp_path / "scan.png").exists()
