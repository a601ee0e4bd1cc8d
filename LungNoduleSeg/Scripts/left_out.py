"""How the bundled nodule model does on a scan and on patients that it has not seen."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from training_pack import TrainingSet, fold_of

from CTLungScreeningLib.files import new_file
from LungNoduleSegLib.detectors.network_detector import NoduleDetector, load_networks
from LungNoduleSegLib.evaluation.plots import SheetRow, draw_sheet
from LungNoduleSegLib.evaluation.synthetic_lesions import RESULT, evaluate_synthetic_lesions
from LungNoduleSegLib.network.patches import TrainingScan, loosen_lungs
from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules
from LungNoduleSegLib.nodules.table import sphere_diameter

LOOSE_SEED = 100
"""Of the places where the lungs reach into the wall."""


def measure_outlined(
    detector: NoduleDetector, scan: TrainingScan, picture: Path | None = None
) -> dict[str, Any]:
    """Find the nodules of an outlined scan: hits, false positives and Dice of each nodule.

    As in LUNA16, findings on its excluded places do not count, see `LUNA_EXCLUDED`.

    Args:
        detector: the networks.
        scan: with its nodules.
        picture: PNG file for what was found, missed, and wrongly found.
    """
    excluded = scan.doubtful
    assert scan.nodules is not None
    assert excluded is not None
    probability = detector.detect(scan.hu, scan.lungs)
    rules = NoduleRules(**detector.card.rules)
    findings = find_nodules(probability, scan.hu, scan.lungs, rules, scan.hu)
    parts = sitk.ConnectedComponent(scan.nodules > 0)
    truth, found = sitk.GetArrayFromImage(parts), sitk.GetArrayFromImage(findings.labels)
    voxel = float(np.prod(scan.hu.GetSpacing()))
    nodules = []
    rows: dict[str, list[tuple[float, float, float]]] = {"found": [], "missed": [], "others": []}
    for number in range(1, int(truth.max()) + 1):
        own = truth == number
        middle = [float(v) for v in np.argwhere(own).mean(axis=0)[::-1]]
        hits = [int(n) for n in np.unique(found[own]) if n]
        marked = np.isin(found, hits)
        rows["found" if hits else "missed"].append(
            scan.hu.TransformContinuousIndexToPhysicalPoint(middle)
        )
        nodules.append(
            {
                "diameter_mm": round(float(sphere_diameter(own.sum() * voxel)), 1),
                "dice": round(float(2 * (own & marked).sum() / (own.sum() + marked.sum())), 3),
                "probability": max(
                    (findings.nodules[n - 1].probability or 0 for n in hits), default=0
                ),
            }
        )
    hit = {int(n) for n in np.unique(found[truth > 0]) if n}
    others = [n for n in findings.nodules if n.id not in hit]
    false = [
        n for n in others if not excluded[excluded.TransformPhysicalPointToIndex((n.x, n.y, n.z))]
    ]
    rows["others"] = [(n.x, n.y, n.z) for n in false[:6]]
    if picture is not None and not picture.exists():
        shown = [(name, [(scan.hu, place) for place in places]) for name, places in rows.items()]
        draw_sheet(picture, [SheetRow(*row) for row in shown if row[1]])
    return {
        "nodules": nodules,
        "on_excluded_places": len(others) - len(false),
        "false_positives": len(false),
        "false_positive_diameters_mm": [round(n.equivalent_diameter_mm, 1) for n in false],
    }


def measure_left_out(
    model_file: Path, data: Path, training: TrainingSet, name: str, output: Path
) -> dict[str, Any]:
    """Measure a model on a scan and on nodules of other patients, none of which it has seen.

    Returns:
        Its own nodules with and without the classifier, and where its lungs reach into the wall (of
        `loosen_lungs`, up to 8 mm); lesions inserted into it, and real nodules
        transplanted into it, of the fifth of the patients that is left out together with it.
    """
    scan = training.scans[name]
    assert scan.nodules is not None
    assert scan.doubtful is not None
    detector = load_networks(model_file)
    output.mkdir(parents=True, exist_ok=True)
    nodules = output / "nodules.nrrd"
    if not nodules.exists():
        with new_file(nodules) as temporary:
            sitk.WriteImage(scan.nodules | scan.doubtful, temporary, useCompression=True)
    measured: dict[str, Any] = {
        "nodules": measure_outlined(detector, scan, output / "findings.png"),
        "without the classifier": measure_outlined(replace(detector, classifier=None), scan),
        "where the lungs reach into the wall": measure_outlined(
            detector,
            replace(scan, lungs=loosen_lungs(scan.lungs, np.random.default_rng(LOOSE_SEED))),
        ),
    }
    _, held_out = training.split(fold_of(name))
    for kind, cubes, rounds in (("inserted", [], 2), ("transplanted", held_out, 3)):
        folder = output / kind
        if not (folder / RESULT).exists():
            evaluate_synthetic_lesions(
                data / name,
                folder,
                model_file=model_file,
                nodules=nodules,
                cubes=cubes,
                rounds=rounds,
            )
        figures = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        measured[kind] = {key: value for key, value in figures.items() if key != "model"}
    return measured
