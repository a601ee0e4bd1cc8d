"""Train the bundled nodule model from the real scans of a folder and from phantoms.

    python LungNoduleSeg/Scripts/train_default_model.py ../shared/data -o /tmp/model

First a model is trained without LIDC-IDRI-0001, then further where it was mistaken, and measured on
that scan; then training goes on with all scans, and that model is saved. The card says which figure
belongs to which.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CTSliceToolsLib.geometry.axial import AxialView
from CTSliceToolsLib.geometry.cropping import crop_to
from CTSliceToolsLib.hu import AIR_HU
from CTSliceToolsLib.model_card import ModelCard, load_model, save_model
from CTSliceToolsLib.progress import ProgressStyle, shown
from CTSliceToolsLib.reading.ct_reading import read_ct
from LungNoduleSegLib.lungs.roi import segment_lungs
from LungNoduleSegLib.network.inference import nodule_probability
from LungNoduleSegLib.network.insertion import find_sites, insert_random_lesions
from LungNoduleSegLib.network.preparation import Preparation
from LungNoduleSegLib.network.training import (
    TrainingPlan,
    TrainingScan,
    train,
    training_scan,
    with_mistakes,
)
from LungNoduleSegLib.network.unet import build_unet
from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom

HELD_OUT = "LIDC-IDRI-0001"
OUTLINES = {HELD_OUT: "LIDC-IDRI-0001_nodules_ge2of4readers.nrrd"}
UNLABELLED = (
    "CMB-CRC-MSB-01068.nrrd",
    "ACRIN-FLT-Breast_001_headchest.nrrd",
    "ACRIN-FLT-Breast_001_abdopelvis.nrrd",
)
PHANTOM_SEEDS = (11, 12)
PREPARATION = Preparation(size=384, context=2, slab_mm=2.5)
FILTERS = 12
RULES = NoduleRules(min_probability=0.9)

log = logging.getLogger("train_default_model")


def read_training_scan(data: Path, name: str) -> TrainingScan:
    """Read one scan of the folder with its lungs and, where there are any, its outlines."""
    image = read_ct(data / name).image
    view = AxialView.of(image, AIR_HU)
    lungs, hu = crop_to(segment_lungs(view.image), view.image)
    nodules = None
    if name in OUTLINES:
        outlines = sitk.ReadImage(data / OUTLINES[name])
        nodules = sitk.Resample(outlines, hu, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return training_scan(name, hu, lungs, nodules)


def phantom_scan(seed: int) -> TrainingScan:
    """Make a phantom without lesions of its own; they are inserted in training."""
    phantom = make_phantom(PhantomSpec(seed=seed, lesions=()))
    lungs, hu = crop_to(phantom.lungs, phantom.image)
    return training_scan(f"phantom {seed}", hu, lungs)


def measure_outlined(model: Any, scan: TrainingScan) -> dict[str, Any]:
    """Find the nodules of an outlined scan: hits, false positives and Dice."""
    assert scan.nodules is not None
    probability = nodule_probability(model, PREPARATION, scan.hu, scan.lungs)
    findings = find_nodules(probability, scan.hu, scan.lungs, RULES, scan.hu)
    truth = sitk.GetArrayFromImage(sitk.ConnectedComponent(scan.nodules > 0))
    found = sitk.GetArrayFromImage(findings.labels)
    hits = {int(n) for n in np.unique(found[truth > 0]) if n}
    overlap = np.isin(found, sorted(hits)) & (truth > 0)
    matched = np.isin(found, sorted(hits)).sum() + (truth > 0).sum()
    return {
        "outlined_nodules": int(truth.max()),
        "found": len({int(n) for n in np.unique(truth[found > 0]) if n}),
        "false_positives": len(findings.nodules) - len(hits),
        "dice": round(float(2 * overlap.sum() / matched), 3) if hits else 0.0,
        "diameters_mm_of_all": [n.diameter_mm for n in findings.nodules],
    }


def measure_inserted(model: Any, scan: TrainingScan, seed: int) -> dict[str, Any]:
    """Sensitivity for lesions inserted into a scan, by diameter, and all other findings."""
    hu, labels, lesions = insert_random_lesions(
        scan.hu, scan.lungs, find_sites(scan.hu, scan.lungs), 40, np.random.default_rng(seed)
    )
    probability = nodule_probability(model, PREPARATION, hu, scan.lungs)
    findings = find_nodules(probability, hu, scan.lungs, RULES, hu)
    truth, found = sitk.GetArrayFromImage(labels), sitk.GetArrayFromImage(findings.labels)
    seen = set(np.unique(truth[found > 0])) - {0}
    result: dict[str, Any] = {}
    for low, high in ((4, 6), (6, 10), (10, 31)):
        band = [n for n, lesion in enumerate(lesions, 1) if low <= lesion.diameter_mm < high]
        result[f"{low}-{high} mm"] = f"{len(seen & set(band))} of {len(band)}"
    hits = set(np.unique(found[truth > 0])) - {0}
    result["other_findings"] = len(findings.nodules) - len(hits)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the scans")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--steps", type=int, default=2000, help="batches of the first stage")
    parser.add_argument("--start", type=Path, help="model of the first stage, to skip it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    held_out = read_training_scan(options.data, HELD_OUT)
    others = [read_training_scan(options.data, name) for name in UNLABELLED]
    others += [phantom_scan(seed) for seed in PHANTOM_SEEDS]
    log.info("%d scans are ready", len(others) + 1)
    if options.start:
        model, _ = load_model(options.start)
    else:
        model = build_unet(None, PREPARATION.channels, FILTERS, batch_norm=True)
    began = time.monotonic()
    results = {}
    with shown(ProgressStyle.BAR) as report:
        if not options.start:
            plan = TrainingPlan(steps=options.steps)
            log.info("first losses: %s", train(model, others, PREPARATION, plan, report))
            save_model(model, _card(options.steps, {}), options.output / "first.keras")
        plan = TrainingPlan(steps=options.steps // 2, learning_rate=5e-4, seed=2)
        mined = [with_mistakes(model, scan, PREPARATION) for scan in others]
        log.info("second losses: %s", train(model, mined, PREPARATION, plan, report))
        results[f"{HELD_OUT} left out of training"] = {
            "outlined": measure_outlined(model, held_out),
            "inserted": measure_inserted(model, held_out, seed=7),
        }
        log.info("%s", results)
        save_model(model, _card(options.steps, results), options.output / "left-out.keras")
        plan = replace(plan, seed=3)
        mined = [with_mistakes(model, scan, PREPARATION) for scan in (held_out, *others)]
        log.info("third losses: %s", train(model, mined, PREPARATION, plan, report))
    results["shipped model, on scans it was trained on"] = {
        HELD_OUT: measure_outlined(model, held_out),
        "inserted into CMB-CRC-MSB-01068": measure_inserted(model, others[0], seed=7),
    }
    log.info("%s, %.0f minutes", results, (time.monotonic() - began) / 60)
    save_model(model, _card(options.steps, results), options.output / "nodule-unet.keras")


def _card(steps: int, results: dict[str, Any]) -> ModelCard:
    return ModelCard(
        name="nodule-unet",
        summary="U-Net of five levels that marks lung nodules in axial chest CT, five slices at "
        "a time.",
        label="probability that a voxel belongs to a lung nodule of 4 to 30 mm",
        preparation=asdict(PREPARATION),
        rules=asdict(RULES),
        training={
            "script": "LungNoduleSeg/Scripts/train_default_model.py",
            "scans": {
                HELD_OUT: "nodules outlined by at least two of four readers, and inserted lesions;"
                " LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0; second stage only",
                UNLABELLED[0]: "inserted lesions; CMB-CRC, The Cancer Imaging Archive",
                UNLABELLED[1]: "inserted lesions; ACRIN-FLT-Breast, The Cancer Imaging Archive",
                UNLABELLED[2]: "inserted lesions; the same patient",
                "phantoms": f"inserted lesions; seeds {PHANTOM_SEEDS}",
            },
            "filters": FILTERS,
            "stages": [
                f"{steps} batches without {HELD_OUT}, learning rate 1e-3",
                f"{steps // 2} more, a quarter of the patches where the network had been wrong, "
                "5e-4",
                f"{steps // 2} more with all scans, likewise, 5e-4",
            ],
            "batch": TrainingPlan.batch,
            "patch": TrainingPlan.patch,
        },
        results=results,
        limitations=[
            "Trained on three patients and on artificial lesions: a research prototype.",
            "One real nodule was at hand; figures on inserted lesions are not figures on patients.",
            "Nodules under 4 mm and masses over 30 mm were not in training.",
            "Findings outside the lung segmentation cannot be made.",
        ],
    )


if __name__ == "__main__":
    main()
