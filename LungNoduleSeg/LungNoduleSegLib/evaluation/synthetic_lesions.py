"""Detection of synthetic lesions by size and type, scored like real nodules, see `detection`."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.geometry import AxialView, voxels_to_lps
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.model_card import ModelCard
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.default_model import DEFAULT_MODEL
from LungNoduleSegLib.detectors.models import open_detector
from LungNoduleSegLib.evaluation import plots
from LungNoduleSegLib.evaluation.detection import (
    DetectionScore,
    score_detection,
    write_curve,
)
from LungNoduleSegLib.evaluation.lesion_placement import (
    SIZES_MM,
    Ball,
    LesionType,
    SyntheticLesion,
    find_lung_sites,
    insert_synthetic_lesions,
)
from LungNoduleSegLib.evaluation.luna_files import (
    DIAMETER,
    PROBABILITY,
    Places,
    Truth,
    write_places,
    write_scans,
)
from LungNoduleSegLib.evaluation.masks import read_mask
from LungNoduleSegLib.lungs.segmentation import LungMethod, segment_lungs
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.pipeline import Timing, analyse

SUBMISSION, ANNOTATIONS, EXCLUDED, SCANS = (
    "submission.csv",
    "annotations.csv",
    "annotations_excluded.csv",
    "seriesuids.csv",
)
LESIONS, RESULT, CURVE = "lesions.csv", "inserted.json", "froc.csv"
PLOT, TABLE, SHEET = "froc.png", "sensitivity.png", "lesions.png"
OUTPUTS = (SUBMISSION, ANNOTATIONS, EXCLUDED, SCANS, LESIONS, RESULT, CURVE, PLOT, TABLE, SHEET)


@dataclass(frozen=True)
class SyntheticLesionResult:
    """The result of a synthetic lesion test.

    Attributes:
        card: of the model.
        threshold: minimum probability of a finding by the model's rules.
        lesions: in the order of the truth.
        probability: of the detection of each lesion; minus infinity if missed.
        score: as for any submission.
    """

    card: ModelCard
    threshold: float
    lesions: tuple[SyntheticLesion, ...]
    probability: tuple[float, ...]
    score: DetectionScore

    def sensitivity(self) -> dict[LesionType, dict[tuple[int, int], tuple[int, int]]]:
        """Numbers of lesions found at `threshold` and of all, by type and size."""
        counts: dict[LesionType, dict[tuple[int, int], list[int]]] = {
            kind: {size: [0, 0] for size in SIZES_MM} for kind in LesionType
        }
        for lesion, probability in zip(self.lesions, self.probability, strict=True):
            cell = counts[lesion.type][lesion.size_mm]
            cell[0] += probability >= self.threshold
            cell[1] += 1
        return {
            kind: {size: (found, of) for size, (found, of) in row.items()}
            for kind, row in counts.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything except the curve, for a JSON file."""
        cells = self.sensitivity()
        marks = self.score.matching.marks
        false = (marks.probability >= self.threshold) & ~marks.found
        by_size: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        by_type: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for kind, row in cells.items():
            for size, (found, of) in row.items():
                for total in (by_size[f"{size[0]}-{size[1]} mm"], by_type[kind]):
                    total[0] += found
                    total[1] += of
        return {
            "model": {"name": self.card.name, "sha256": self.card.sha256},
            "at_threshold": {
                "threshold": self.threshold,
                "found_of_by_size": dict(by_size),
                "found_of_by_type": dict(by_type),
                "false_positives_per_scan": int(false.sum()) / len(marks.nodules),
            },
            **self.score.to_dict(),
        }


def evaluate_synthetic_lesions(
    source: Path,
    output: Path,
    *,
    model_file: Path = DEFAULT_MODEL,
    nodules: Path | None = None,
    rounds: int = 3,
    seed: int = 0,
    progress: ProgressCallback = silent,
) -> SyntheticLesionResult:
    """Insert lesions into copies of a scan, run the full pipeline on each, and score the result.

    Args:
        source: a scan that the model was not trained on, see `read_ct`.
        output: folder for the results, made if missing.
        model_file: one of the model's files.
        nodules: mask of the scan's own nodules, on any grid; findings on them are ignored and no
            lesion is inserted there. Without it they count as false positives.
        rounds: copies of the scan, each with one lesion of each type and size.
        seed: of all random numbers.
        progress: callback, see `CTLungScreeningLib.progress`.

    Raises:
        InputError: if an input cannot be used, a result exists, or no lesion has room.
    """
    refuse_existing(output, OUTPUTS)
    with whole_output(output, "writing") as folder:
        detector = open_detector(model_file)
        card = detector.card
        rules = NoduleRules(**{**card.rules, "min_probability": None})
        view = AxialView.of(read_ct(source, progress=progress).image, AIR_HU).image
        lungs = segment_lungs(view, progress=progress)
        own = _balls(read_mask(nodules)) if nodules is not None else []
        sites = find_lung_sites(view, lungs)
        lesions: list[SyntheticLesion] = []
        annotated, ignored, marks = [], [], []
        own_places = [(view, tuple(centre.tolist())) for centre, _ in own]
        shown = [plots.SheetRow("real", own_places)] if own else []
        scans = tuple(f"{source.name.split('.')[0]}-{number}" for number in range(1, rounds + 1))
        for number, uid in enumerate(scans):
            progress("Copies", number, rounds)
            rng = np.random.default_rng((seed, number))
            changed, placed = insert_synthetic_lesions(view, lungs, sites, own, rng)
            scan = CTScan(changed, source)
            findings = analyse(scan, detector, LungMethod.VOLUME, rules, Timing()).findings
            marks += [(uid, (n.x, n.y, n.z), n.probability or 0.0) for n in findings.nodules]
            annotated += [(uid, one.centre, one.lesion.diameter_mm) for one in placed]
            ignored += [(uid, tuple(centre.tolist()), 2 * radius) for centre, radius in own]
            lesions += placed
            if not number:
                shown += plots.lesion_rows(changed, placed)
        progress("Copies", rounds, rounds)
        if not lesions:
            raise InputError(f"{source} has no room for a lesion in its lungs: choose a chest CT.")
        truth = Truth(scans, Places.of(annotated), Places.of(ignored))
        resamples = 1000 if rounds > 1 else 0
        score = score_detection(Places.of(marks), truth, resamples=resamples, seed=seed)
        threshold = card.rules.get("min_probability") or rules.threshold
        found = tuple(score.matching.nodule_probability.tolist())
        result = SyntheticLesionResult(card, threshold, tuple(lesions), found, score)
        _write(folder, result, Places.of(marks), truth)
        plots.plot_sensitivity(folder / TABLE, result.sensitivity())
        plots.plot_froc(folder / PLOT, score)
        plots.draw_sheet(folder / SHEET, shown)
    return result


def to_text(result: SyntheticLesionResult) -> str:
    """Format the result as text."""
    figures = result.to_dict()
    at = figures["at_threshold"]
    lines = [f"Found at a probability of {result.threshold:g}:"]
    for name in ("found_of_by_size", "found_of_by_type"):
        lines += [f"  {key:14} {found} of {of}" for key, (found, of) in at[name].items()]
    lines.append(f"False positives per scan: {at['false_positives_per_scan']:.1f}")
    return "\n".join([*lines, result.score.to_text()])


def _balls(labels: sitk.Image) -> list[Ball]:
    """The bounding sphere of each nodule around its centre."""
    parts = sitk.ConnectedComponent(labels > 0, True)
    array = sitk.GetArrayViewFromImage(parts)
    balls = []
    for number in range(1, int(array.max()) + 1):
        points = voxels_to_lps(labels, np.argwhere(array == number))
        centre = points.mean(axis=0)
        reach = np.linalg.norm(points - centre, axis=1).max()
        balls.append((centre, float(reach + max(labels.GetSpacing()) / 2)))
    return balls


def _write(output: Path, result: SyntheticLesionResult, marks: Places, truth: Truth) -> None:
    write_places(output / SUBMISSION, PROBABILITY, marks)
    write_places(output / ANNOTATIONS, DIAMETER, truth.nodules)
    write_places(output / EXCLUDED, DIAMETER, truth.excluded)
    write_scans(output / SCANS, truth.scans)
    write_curve(output / CURVE, result.score)
    with new_file(output / RESULT) as temporary:
        temporary.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    with (
        new_file(output / LESIONS) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv_files.Writer(stream)
        writer.writerow(["scan", "type", "x", "y", "z", "diameter_mm", "probability"])
        for uid, lesion, probability in zip(
            truth.nodules.series.tolist(), result.lesions, result.probability, strict=True
        ):
            found = probability if np.isfinite(probability) else ""
            place = [round(v, 3) for v in (*lesion.centre, lesion.lesion.diameter_mm)]
            writer.writerow([uid, lesion.type, *place, found])
