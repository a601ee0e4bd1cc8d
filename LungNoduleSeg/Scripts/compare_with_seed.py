"""Compare our nodule model with the tutorial's U-Net, trained as long on the same scans.

    python LungNoduleSeg/Scripts/compare_with_seed.py ../shared/data --model \
        /tmp/model/without-LIDC-IDRI-0001.keras --seconds 2400 -o /tmp/comparison

`--model` is a model that `train_default_model.py` trained without LIDC-IDRI-0001, `--seconds` what
its log says that this took of the processors. The tutorial's network learns from the same scans
with as many lesions in them, from spheres with twice the radius. Both are measured on
LIDC-IDRI-0001 and on lesions inserted into it.
"""

import argparse
import itertools
import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from train_default_model import (
    LIDC_1 as LIDC,
)
from train_default_model import (
    OUTLINED,
    PHANTOMS,
    PLACES,
)

from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import ModelCard, read_card, save_model
from CTLungScreeningLib.reading.ct_reading import read_ct
from LungNoduleSegLib.evaluation.dice import evaluate_dice
from LungNoduleSegLib.evaluation.luna_files import DIAMETER, Places, write_places
from LungNoduleSegLib.evaluation.synthetic_lesions import evaluate_synthetic_lesions
from LungNoduleSegLib.lungs.labels import LungMethod
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.network.patches import find_sites, insert_random_lesions
from LungNoduleSegLib.network.unet import build_unet, dice_loss
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.options import Preset, StoreTrainingPlan
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom
from LungNoduleSegLib.results.reading import RECORD
from LungNoduleSegLib.training_data.luna16 import prepare_luna
from LungNoduleSegLib.training_data.store import EXAMPLE_PREPARATION, read_store, split_examples
from LungNoduleSegLib.training_data.training import ExampleBatches

CMB, HEAD, ABDOMEN = (
    "CMB-CRC-MSB-01068.nrrd",
    "ACRIN-FLT-Breast_001_headchest.nrrd",
    "ACRIN-FLT-Breast_001_abdopelvis.nrrd",
)
COPIES, LESIONS = 2, 40

log = logging.getLogger("compare_with_seed")


def write_luna(data: Path, folder: Path) -> Path:
    """Write the scans with lesions inserted, as LUNA16 has them; returns their annotations."""
    scans = {
        name: AxialView.of(read_ct(data / name).image, AIR_HU).image
        for name in (CMB, HEAD, ABDOMEN)
    }
    for seed in PHANTOMS[:2]:
        scans[f"phantom-{seed}"] = make_phantom(PhantomSpec(seed=seed, lesions=())).image
    rows: list[tuple[str, Sequence[float], float]] = []
    for number, (name, hu) in enumerate(scans.items()):
        lungs = segment_lungs(hu)
        sites = find_sites(hu, lungs)
        for copy in range(COPIES):
            rng = np.random.default_rng((number, copy))
            changed, labels, _ = insert_random_lesions(hu, lungs, sites, LESIONS, rng)
            uid = f"{name.split('.')[0]}-{copy}"
            sitk.WriteImage(changed, folder / f"{uid}.mhd", useCompression=True)
            shapes = sitk.LabelShapeStatisticsImageFilter()
            shapes.Execute(labels)
            rows += [
                (uid, shapes.GetCentroid(n), 2 * shapes.GetEquivalentSphericalRadius(n))
                for n in shapes.GetLabels()
            ]
            rows += [(uid, place, diameter) for place, diameter in PLACES.get(name, ())]
    annotations = folder / "annotations.csv"
    write_places(annotations, DIAMETER, Places.of(rows))
    return annotations


def train_seed(store: Path, seconds: float, file: Path) -> int:
    """Train the tutorial's network for so many seconds of the processors; returns its batches."""
    plan = StoreTrainingPlan.of(Preset.TUTORIAL)
    examples = split_examples(read_store(store), plan.seed).training
    batches = ExampleBatches(examples, plan.batch, plan.seed)
    keras.utils.set_random_seed(plan.seed)
    network = build_unet(EXAMPLE_PREPARATION.size, EXAMPLE_PREPARATION.channels, plan.filters)
    network.compile(keras.optimizers.Adam(plan.learning_rate), dice_loss)
    began = time.process_time()
    for step in itertools.count():
        loss = network.train_on_batch(*batches[step % len(batches)])
        if step % 20 == 0:
            log.info("%d batches, Dice loss %.3f", step, float(loss))
        if time.process_time() - began > seconds:
            break
    card = ModelCard(
        "seed", "", "", asdict(EXAMPLE_PREPARATION), asdict(NoduleRules(min_probability=None))
    )
    save_model(network, card, file)
    return step + 1


def measure(model_file: Path, data: Path, output: Path, method: LungMethod) -> dict[str, Any]:
    """Measure one model on the scan that it has not seen."""
    results = output / "run"
    command = [sys.executable, "-m", "LungNoduleSegLib", "run", str(data / LIDC)]
    command += ["-o", str(results), "--model", str(model_file)]
    command += ["--lungs", method, "--progress", "none"]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    elapsed = time.perf_counter() - began
    truth = data / OUTLINED[LIDC]
    outlined = evaluate_dice(results, truth, resample=True)[0]
    inserted = evaluate_synthetic_lesions(
        data / LIDC, output / "inserted", model_file=model_file, nodules=truth, rounds=1
    ).to_dict()
    networks = [model_file]
    classifier = read_card(model_file).classifier
    if classifier:
        networks.append(model_file.with_name(classifier))
    return {
        "Dice of the outlined nodule": round(outlined.nodules[0].dice, 3),
        "false positives": outlined.false_positives,
        "CPM, inserted lesions": round(inserted["cpm"], 3),
        "network, s a scan": json.loads((results / RECORD).read_text())["timing_s"]["Nodules"],
        "all, s a scan": round(elapsed, 1),
        "MB": round(sum(file.stat().st_size for file in networks) / 1e6, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the tutorial's network, measure both, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with the scans")
    parser.add_argument("--model", type=Path, required=True, help="our model, trained without LIDC")
    parser.add_argument("--seconds", type=float, required=True, help="of the processors")
    parser.add_argument("-o", "--output", type=Path, required=True, help="new folder")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    output: Path = options.output
    luna, store, seed = output / "luna", output / "store", output / "seed.keras"
    if not seed.exists():
        luna.mkdir(parents=True, exist_ok=True)
        outcome = prepare_luna(luna, write_luna(options.data, luna), store, tutorial_masks=True)
        log.info("%s examples; failed: %s", outcome.examples, outcome.failed)
        log.info("%d batches", train_seed(store, options.seconds, seed))
    rows = {
        "the tutorial's": measure(seed, options.data, output / "seed", LungMethod.TUTORIAL),
        "this project's": measure(options.model, options.data, output / "model", LungMethod.VOLUME),
    }
    print("| |", " | ".join(rows), "|")
    print("|---" * (len(rows) + 1) + "|")
    for name in rows["this project's"]:
        print(f"| {name} |", " | ".join(str(row[name]) for row in rows.values()), "|")


if __name__ == "__main__":
    main()
