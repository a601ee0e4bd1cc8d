"""Train the bundled nodule model from the real scans of a folder and from phantoms.

    python LungNoduleSeg/Scripts/train_default_model.py ../shared/data -o /tmp/model

Stage 1 trains without LIDC-IDRI-0001, stage 2 goes on where the network was mistaken, and is
measured on that scan; stages 3 and 4 go on with all scans, again where it was mistaken, and that
model is shipped. The card says which figure belongs to which.
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
from LungNoduleSegLib.network.patches import TrainingPlan, TrainingScan, training_scan
from LungNoduleSegLib.network.preparation import Preparation
from LungNoduleSegLib.network.training import train, with_mistakes
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
SEEN = {UNLABELLED[0]: (((96, -2, -109), 26.0), ((-66, -20, -200), 8.7), ((61, -33, -149), 5.6))}
"""Nodules seen by us in scans that nobody outlined, so that they are not taken for mistakes."""
DENSE_HU = -500
STAGES = 4
PHANTOM_SEEDS = (11, 12)
PREPARATION = Preparation(size=384, context=2, slab_mm=2.5)
FILTERS = 12
RULES = NoduleRules(min_probability=0.9, min_diameter_mm=4.5)

log = logging.getLogger("train_default_model")


def read_training_scan(data: Path, name: str) -> TrainingScan:
    """Read one scan of the folder with its lungs and, where there are any, its outlines."""
    image = read_ct(data / name).image
    view = AxialView.of(image, AIR_HU)
    lungs, hu = crop_to(segment_lungs(view.image), view.image)
    nodules = None
    if name in SEEN:
        nodules = mark_nodules(hu, lungs, SEEN[name])
    if name in OUTLINES:
        outlines = sitk.ReadImage(data / OUTLINES[name])
        nodules = sitk.Resample(outlines, hu, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return training_scan(name, hu, lungs, nodules)


def mark_nodules(
    hu: sitk.Image, lungs: sitk.Image, places: Sequence[tuple[tuple[float, float, float], float]]
) -> sitk.Image:
    """Mark nodules by their place (LPS mm) and diameter (mm): what is dense around the place."""
    dense = (hu > DENSE_HU) & (lungs > 0)
    marked = sitk.Image(hu.GetSize(), sitk.sitkUInt8)
    marked.CopyInformation(hu)
    for place, diameter in places:
        index = hu.TransformPhysicalPointToIndex(place)
        point = sitk.Image(hu.GetSize(), sitk.sitkUInt8)
        point.CopyInformation(hu)
        point[index] = 1
        near = sitk.SignedMaurerDistanceMap(point, squaredDistance=False, useImageSpacing=True)
        marked |= sitk.ConnectedThreshold(
            sitk.Cast(dense & (near < 0.7 * diameter), sitk.sitkUInt8), [index], 1, 1
        )
    return marked


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
    parser.add_argument("--start", type=Path, help="model of an earlier stage, to go on from")
    parser.add_argument("--stage", type=int, default=1, help="stage to begin with, 1 to 4")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    held_out = read_training_scan(options.data, HELD_OUT)
    others = [read_training_scan(options.data, name) for name in UNLABELLED]
    others += [phantom_scan(seed) for seed in PHANTOM_SEEDS]
    log.info("%d scans are ready", len(others) + 1)
    model, results = _begin(options.start)
    began = time.monotonic()
    with shown(ProgressStyle.BAR) as report:
        for stage in range(options.stage, STAGES + 1):
            scans = others if stage <= 2 else [held_out, *others]
            plan = TrainingPlan(steps=options.steps, seed=stage)
            if stage > 1:
                plan = replace(plan, steps=options.steps // 2, learning_rate=5e-4)
                scans = [with_mistakes(model, scan, PREPARATION) for scan in scans]
            losses = train(model, scans, PREPARATION, plan, report)
            log.info("losses of stage %d: %s", stage, [round(loss, 3) for loss in losses])
            name = f"stage-{stage}"
            if stage == 2:
                results[f"{HELD_OUT} left out of training"] = {
                    "outlined": measure_outlined(model, held_out),
                    "inserted": measure_inserted(model, held_out, seed=7),
                }
            if stage == STAGES:
                results["shipped model, on scans it was trained on"] = {
                    HELD_OUT: measure_outlined(model, held_out),
                    f"inserted into {UNLABELLED[0]}": measure_inserted(model, others[0], seed=7),
                }
                name = "nodule-unet"
            log.info("%s, %.0f minutes", results, (time.monotonic() - began) / 60)
            save_model(model, _card(options.steps, results), options.output / f"{name}.keras")


def _begin(start: Path | None) -> tuple[Any, dict[str, Any]]:
    if start is None:
        return build_unet(None, PREPARATION.channels, FILTERS, batch_norm=True), {}
    model, card = load_model(start)
    return model, dict(card.results)


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
                " LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0; stages 3 and 4 only",
                UNLABELLED[0]: "three nodules marked by us, in stages 3 and 4 only, and inserted "
                "lesions; CMB-CRC, The Cancer Imaging Archive",
                UNLABELLED[1]: "inserted lesions; ACRIN-FLT-Breast, The Cancer Imaging Archive",
                UNLABELLED[2]: "inserted lesions; the same patient",
                "phantoms": f"inserted lesions; seeds {PHANTOM_SEEDS}",
            },
            "filters": FILTERS,
            "stages": [
                f"{steps} batches without {HELD_OUT}, learning rate 1e-3",
                f"{steps // 2} more, a quarter of the patches where the network had been wrong, "
                "5e-4",
                f"twice {steps // 2} more with all scans, likewise, 5e-4",
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
