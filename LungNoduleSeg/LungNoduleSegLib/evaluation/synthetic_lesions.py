"""Detection of lesions or real nodules inserted into a scan, scored like its own nodules.

See `detection` for the score.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.geometry import AxialView, Box, onto_grid, voxels_to_lps
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.json_files import write_object
from CTLungScreeningLib.model_card import ModelCard
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.detectors.models import open_detector
from LungNoduleSegLib.evaluation import plots, subgroups
from LungNoduleSegLib.evaluation.detection import (
    DetectionScore,
    score_detection,
    true_nodules,
    write_curve,
)
from LungNoduleSegLib.evaluation.lesion_placement import (
    SYNTHETIC,
    Ball,
    LesionType,
    PlacedLesion,
    find_lung_sites,
    insert_real_nodules,
    insert_synthetic_lesions,
)
from LungNoduleSegLib.evaluation.luna_files import (
    DIAMETER,
    PROBABILITY,
    Places,
    Truth,
    write_annotations,
    write_places,
    write_scans,
)
from LungNoduleSegLib.evaluation.masks import read_mask
from LungNoduleSegLib.evaluation.subgroups import (
    LARGER,
    SIZES_MM,
    SMALLER,
    Calibration,
    Size,
    Subgroup,
    TrueNodule,
)
from LungNoduleSegLib.lungs.labels import LungMethod
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.network.inference import LOWEST
from LungNoduleSegLib.network.transplants import NoduleCube
from LungNoduleSegLib.nodules.finding import NoduleFindings, NoduleRules, find_nodules
from LungNoduleSegLib.nodules.table import NoduleKind, Place
from LungNoduleSegLib.options import DEFAULT_MODEL, SyntheticOptions
from LungNoduleSegLib.pipeline import Analysis, Timing, analyse

SUBMISSION, ANNOTATIONS, EXCLUDED, SCANS = (
    "submission.csv",
    "annotations.csv",
    "annotations_excluded.csv",
    "seriesuids.csv",
)
LESIONS, RESULT, CURVE, SUBGROUPS = (
    "lesions.csv",
    "synthetic.json",
    "froc.csv",
    "subgroups.csv",
)
PLOT, TABLE, SHEET, CALIBRATION = (
    "froc.png",
    "sensitivity.png",
    "lesions.png",
    "calibration.png",
)
OUTPUTS = (
    *(SUBMISSION, ANNOTATIONS, EXCLUDED, SCANS),
    *(LESIONS, RESULT, CURVE, SUBGROUPS),
    *(PLOT, TABLE, SHEET, CALIBRATION),
)

REAL_PER_COPY = 40
"""Real nodules inserted into a copy of the scan."""


@dataclass(frozen=True)
class SyntheticLesionResult:
    """The result of a synthetic lesion test.

    Attributes:
        card: of the model.
        threshold: minimum probability of a finding by the model's rules.
        lesions: in the order of the truth.
        nodules: the same, with the probability and Dice of their detection.
        score: as for any submission.
    """

    card: ModelCard
    threshold: float
    lesions: tuple[PlacedLesion, ...]
    nodules: tuple[TrueNodule, ...]
    score: DetectionScore

    def subgroups(self) -> list[Subgroup]:
        """What was found at `threshold`, by size, texture and place."""
        return subgroups.subgroups(self.nodules, self.threshold)

    def calibration(self) -> Calibration | None:
        """Of all marks, those below `threshold` too."""
        marks = self.score.matching.marks
        return subgroups.calibration(marks.probability, marks.found)

    def sensitivity(self) -> dict[str, dict[Size, tuple[int, int]]]:
        """Numbers of lesions found at `threshold` and of all, by size, and by type or place.

        Real nodules are listed by texture, as far as it is known, and place. `SMALLER` and
        `LARGER` are there only if a lesion is of that size.
        """
        met = {subgroups.size_of(one.diameter_mm) for one in self.lesions}
        sizes = [one for one in (SMALLER, *SIZES_MM, LARGER) if one in met or one in SIZES_MM]
        counts: dict[str, dict[Size, list[int]]] = {}
        for lesion, nodule in zip(self.lesions, self.nodules, strict=True):
            real = lesion.type is LesionType.TRANSPLANTED
            size = subgroups.size_of(lesion.diameter_mm)
            for kind in (lesion.texture, lesion.place) if real else (lesion.type,):
                if kind:
                    row = counts.setdefault(kind, {size: [0, 0] for size in sizes})
                    row[size][0] += nodule.probability >= self.threshold
                    row[size][1] += 1
        synthetic = self.lesions[0].type in SYNTHETIC
        order: list[str] = [*SYNTHETIC] if synthetic else [*NoduleKind, *Place]
        return {
            kind: {size: (found, of) for size, (found, of) in counts[kind].items()}
            for kind in order
            if kind in counts
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything except the curve, for a JSON file."""
        marks = self.score.matching.marks
        false = (marks.probability >= self.threshold) & ~marks.found
        by_type: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for lesion, nodule in zip(self.lesions, self.nodules, strict=True):
            by_type[lesion.type][0] += nodule.probability >= self.threshold
            by_type[lesion.type][1] += 1
        groups = self.subgroups()
        return {
            "model": {"name": self.card.name, "sha256": self.card.sha256},
            "at_threshold": {
                "threshold": self.threshold,
                "found_of_by_size": {
                    one.name: [one.found, one.nodules] for one in groups if one.by == "size"
                },
                "found_of_by_type": dict(by_type),
                "false_positives_per_scan": int(false.sum()) / len(marks.nodules),
            },
            **subgroups.to_dict(groups, self.calibration(), self.threshold),
            **self.score.to_dict(),
        }


def evaluate_synthetic_lesions(
    source: Path,
    output: Path,
    *,
    model_file: Path = DEFAULT_MODEL,
    nodules: Path | None = SyntheticOptions.nodules,
    cubes: Sequence[NoduleCube] = (),
    rounds: int = SyntheticOptions.rounds,
    seed: int = SyntheticOptions.seed,
    progress: ProgressCallback = silent,
) -> SyntheticLesionResult:
    """Insert lesions into copies of a scan, run the full pipeline on each, and score the result.

    Args:
        source: a scan that the model was not trained on, see `read_ct`.
        output: folder for the results, made if missing.
        model_file: one of the model's files.
        nodules: mask of the scan's own nodules, on any grid; findings on them are ignored and no
            lesion is inserted there. Without it they count as false positives.
        cubes: real nodules that the model was not trained on, to be inserted instead of synthetic
            lesions, see `transplants.read_cubes`; up to `REAL_PER_COPY` into each copy, all in
            turn.
        rounds: copies of the scan, each with one synthetic lesion of each type and size.
        seed: of all random numbers.
        progress: callback, see `CTLungScreeningLib.progress`.

    Raises:
        InputError: if an input cannot be used, a result exists, or no lesion has room.
    """
    refuse_existing(output, OUTPUTS)
    with whole_output(output) as folder:
        detector = open_detector(model_file)
        card = detector.card
        rules = NoduleRules(**{**card.rules, "min_probability": None})
        threshold = card.rules.get("min_probability") or rules.threshold
        view = AxialView.of(read_ct(source, progress=progress).image, AIR_HU).image
        lungs = segment_lungs(view, progress=progress)
        own = nodule_spheres(read_mask(nodules)) if nodules is not None else []
        sites = find_lung_sites(view, lungs)
        lesions: list[PlacedLesion] = []
        dice: list[float] = []
        annotated, ignored, marks = [], [], []
        own_places = [(view, tuple(centre.tolist())) for centre, _ in own]
        shown = [plots.SheetRow("own", own_places)] if own else []
        scans = tuple(f"{source.name.split('.')[0]}-{number}" for number in range(1, rounds + 1))
        shuffled = np.random.default_rng(seed).permutation(len(cubes))
        for number, uid in enumerate(scans):
            progress("Copies", number, rounds)
            rng = np.random.default_rng((seed, number))
            if cubes:
                turn = np.arange(number * REAL_PER_COPY, (number + 1) * REAL_PER_COPY)
                drawn = np.unique(turn % len(cubes))
                chosen = [cubes[n] for n in shuffled[drawn]]
                changed, placed = insert_real_nodules(view, lungs, sites, own, chosen, rng)
            else:
                changed, placed = insert_synthetic_lesions(view, lungs, sites, own, rng)
            scan = CTScan(changed, source)
            analysis = analyse(scan, detector, LungMethod.VOLUME, rules, Timing())
            marks += [(uid, place, probability) for place, probability in _marks(analysis, rules)]
            annotated += [(uid, one.centre, one.diameter_mm) for one in placed]
            around = [*own, *(_ball(view, one.box, one.mask) for one in placed)]
            ignored += [(uid, tuple(centre.tolist()), 2 * radius) for centre, radius in around]
            lesions += placed
            dice += _dice(placed, analysis.findings, view, threshold)
            if not number:
                shown += plots.lesion_rows(changed, placed)
        progress("Copies", rounds, rounds)
        if not lesions:
            raise InputError(f"{source} has no room for a lesion in its lungs: choose a chest CT.")
        truth = Truth(
            scans,
            Places.of(annotated),
            Places.of(ignored),
            tuple(one.texture for one in lesions),
            tuple(one.place for one in lesions),
        )
        resamples = 1000 if rounds > 1 else 0
        score = score_detection(Places.of(marks), truth, resamples=resamples, seed=seed)
        found = true_nodules(score, truth, dice)
        result = SyntheticLesionResult(card, threshold, tuple(lesions), found, score)
        _write(folder, result, Places.of(marks), truth)
        plots.plot_sensitivity(folder / TABLE, result.sensitivity())
        plots.plot_froc(folder / PLOT, score)
        plots.plot_calibration(folder / CALIBRATION, result.calibration())
        plots.draw_sheet(folder / SHEET, shown)
    return result


def to_text(result: SyntheticLesionResult) -> str:
    """Format the result as text."""
    figures = result.to_dict()
    at = figures["at_threshold"]
    lines = [f"Found at a probability of {result.threshold:g}:"]
    if len(at["found_of_by_type"]) > 1:
        lines += [f"  {k:14} {found} of {of}" for k, (found, of) in at["found_of_by_type"].items()]
    lines.append(subgroups.to_text(result.subgroups(), result.calibration()))
    lines.append(f"False positives per scan: {at['false_positives_per_scan']:.1f}")
    return "\n".join([*lines, result.score.to_text()])


def _marks(analysis: Analysis, rules: NoduleRules) -> list[tuple[tuple[float, ...], float]]:
    """List places (LPS mm) and probabilities: what a run finds, and fainter marks down to `LOWEST`.

    Without these a FROC curve ends at the probability from which on voxels are marked.
    """
    lower = replace(rules, threshold=min(LOWEST, rules.threshold))
    grids = analysis.probability, analysis.hu, analysis.lungs
    all_marks = find_nodules(*grids, lower, analysis.scan.image).nodules
    fainter = [one for one in all_marks if (one.probability or 0.0) < rules.threshold]
    shown = (*analysis.findings.nodules, *fainter)
    return [((one.x, one.y, one.z), one.probability or 0.0) for one in shown]


def _dice(
    placed: Sequence[PlacedLesion], findings: NoduleFindings, grid: sitk.Image, threshold: float
) -> list[float]:
    """Dice of each lesion with all findings that overlap it and reach the threshold."""
    labels = sitk.GetArrayFromImage(onto_grid(findings.labels, grid))
    sizes = np.bincount(labels.ravel())
    likely = [one.id for one in findings.nodules if (one.probability or 0.0) >= threshold]
    result = []
    for one in placed:
        met = labels[one.box][one.mask]
        met = met[np.isin(met, likely)]
        both = np.count_nonzero(one.mask) + sizes[np.unique(met)].sum()
        result.append(float(2 * len(met) / both))
    return result


def nodule_spheres(labels: sitk.Image) -> list[Ball]:
    """The bounding sphere of each nodule around its centre."""
    parts = sitk.ConnectedComponent(labels > 0, True)
    array = sitk.GetArrayViewFromImage(parts)
    balls = []
    for number, box in enumerate(ndimage.find_objects(array), 1):
        balls.append(_ball(labels, box, array[box] == number))
    return balls


def _ball(grid: sitk.Image, box: Box, mask: NDArray[np.bool_]) -> Ball:
    """The bounding sphere of a mask in a box of the grid, around its centre."""
    points = voxels_to_lps(grid, np.argwhere(mask) + [part.start for part in box])
    centre = points.mean(axis=0)
    reach = np.linalg.norm(points - centre, axis=1).max()
    return centre, float(reach + max(grid.GetSpacing()) / 2)


def _write(output: Path, result: SyntheticLesionResult, marks: Places, truth: Truth) -> None:
    write_places(output / SUBMISSION, PROBABILITY, marks)
    write_annotations(output / ANNOTATIONS, truth)
    write_places(output / EXCLUDED, DIAMETER, truth.excluded)
    write_scans(output / SCANS, truth.scans)
    write_curve(output / CURVE, result.score)
    subgroups.write_csv(output / SUBGROUPS, result.subgroups())
    write_object(output / RESULT, result.to_dict())
    rows: list[tuple[object, ...]] = []
    for uid, lesion, nodule in zip(
        truth.nodules.series.tolist(), result.lesions, result.nodules, strict=True
    ):
        found = nodule.probability if np.isfinite(nodule.probability) else ""
        where = [round(v, 3) for v in (*lesion.centre, lesion.diameter_mm)]
        kind = (lesion.type, lesion.texture, lesion.place)
        rows.append((uid, *kind, *where, found, round(nodule.dice or 0.0, 4)))
    columns = ("scan", "type", "texture", "place", "x", "y", "z", "diameter_mm")
    csv_files.write_table(output / LESIONS, (*columns, "probability", "dice"), rows)
