"""Train the bundled nodule model, and measure it on patients that it has not seen.

    python LungNoduleSeg/Scripts/train_default_model.py ../shared/data -o /tmp/model

A first network learns from phantoms, from scans in which nobody outlined a nodule, and from real
nodules transplanted into both, of patients that are never left out. From it others go on, each
with one of the outlined scans and a fifth of the nodules' patients left out, and three times more
where they were mistaken. The last one goes on from the first of these, with everything. For each a
classifier learns to tell nodules from the mistakes. What is left out is measured; the pair that saw
everything is the result. `--second-opinion MODEL` adds another U-Net that looks at what it marks.
With `--network MODEL` no U-Net is trained: the classifiers learn what that one and the second
opinion take for nodules, and it is measured on the scans that it has not seen, where the second
opinion is asked if that has not seen them either. A stage whose file is there is not trained again.

On a machine with a GPU and little else:

    python LungNoduleSeg/Scripts/train_default_model.py ../shared/data --pack data.zip
    python train_default_model.py --from-pack data.zip -o models --minutes 12     # there
    python LungNoduleSeg/Scripts/train_default_model.py ../shared/data -o models  # measures

The middle one needs numpy, scipy, SimpleITK, psutil, Keras and one backend. It keeps checkpoints,
stops in time, and goes on where it was when it is started again.
"""

import argparse
import csv
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from training_pack import (
    CMB,
    CUBES,
    LIDC_1,
    LIDC_12,
    OTHERS,
    OUTLINED,
    PLACES,
    TrainingSet,
    fold_of,
    read_pack,
    read_training_set,
    write_pack,
)

from CTLungScreeningLib.engine import Network
from CTLungScreeningLib.errors import Cancelled
from CTLungScreeningLib.geometry import crop_to
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import fit
from CTLungScreeningLib.model_card import (
    ModelCard,
    load_model,
    load_network,
    read_card,
    save_model,
    training_folder,
)
from LungNoduleSegLib.network.classifier_cubes import (
    ClassifierPlan,
    gather_cubes,
    mistaken_places,
)
from LungNoduleSegLib.network.classifier_training import train_classifier
from LungNoduleSegLib.network.inference import Preparation, nodule_probability
from LungNoduleSegLib.network.patch_batches import PatchBatches
from LungNoduleSegLib.network.patches import (
    PatchTrainingPlan,
    TrainingScan,
    training_scan,
)
from LungNoduleSegLib.network.transplants import NoduleCube
from LungNoduleSegLib.network.unet import build_unet, compile_for_training, with_mistakes
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom

SOURCES = {
    LIDC_1: "nodules outlined by at least two of four readers, and inserted lesions; LIDC-IDRI, "
    "The Cancer Imaging Archive, CC BY 3.0",
    LIDC_12: "likewise",
    CMB: f"{len(PLACES[CMB])} nodules marked by us, and inserted lesions; CMB-CRC, The Cancer "
    "Imaging Archive",
    OTHERS[0]: "inserted lesions; ACRIN-FLT-Breast, The Cancer Imaging Archive",
    OTHERS[1]: "inserted lesions; the same patient",
    OTHERS[2]: "inserted lesions; CPTAC, The Cancer Imaging Archive",
    "lidc_nodules": "real nodules of other patients, transplanted into all of these; LIDC-IDRI, "
    "The Cancer Imaging Archive, CC BY 3.0",
}
PHANTOMS = (11, 12, 13)
"""Seeds; the first two are used throughout, all in the first stage."""
PREPARATION = Preparation(size=384, context=2, slab_mm=2.5)
FILTERS = 12
EPOCH = 100
"""Batches between two checkpoints of a training."""

FIRST = PatchTrainingPlan(steps=2000, seed=1)
SECOND = PatchTrainingPlan(steps=2500, seed=2)
THIRD = PatchTrainingPlan(steps=1500, learning_rate=5e-4, seed=3)
FOURTH = PatchTrainingPlan(steps=3000, seed=11)
FIFTH = PatchTrainingPlan(steps=2500, learning_rate=5e-4, seed=12)
SIXTH = PatchTrainingPlan(steps=1500, learning_rate=5e-4, seed=4)
CLASSIFIER = ClassifierPlan()
RULES = NoduleRules(threshold=0.5, min_probability=0.6, max_elongation=4.0)
NAME, CLASSIFIER_NAME = "nodule-unet", "nodule-classifier"
CITATION = "LIDC-IDRI, CMB-CRC, ACRIN-FLT-Breast and CPTAC, The Cancer Imaging Archive."

log = logging.getLogger("train_default_model")


def phantom_scan(seed: int) -> TrainingScan:
    """Make a phantom without lesions of its own; they are inserted in training."""
    phantom = make_phantom(PhantomSpec(seed=seed, lesions=()))
    lungs, hu = crop_to(phantom.lungs, phantom.image)
    return training_scan(f"phantom {seed}", hu, lungs)


def train_network(
    file: Path,
    start: Path | None,
    scans: Sequence[TrainingScan],
    plan: PatchTrainingPlan,
    cubes: Sequence[NoduleCube],
    deadline: Callable[[str, int, int], None],
) -> Path:
    """Train a segmentation network from the weights of another, unless its file is there."""
    if file.exists():
        return file
    keras.utils.set_random_seed(plan.seed)
    network = new_network()
    learnt: dict[str, Any] = {}
    if start is not None:
        before, card = load_model(start)
        network.set_weights(before.get_weights())
        learnt = card.training
    began, cpu = time.monotonic(), time.process_time()
    compile_for_training(network, plan.learning_rate, plan.steps)
    with closing(PatchBatches(scans, PREPARATION, plan, EPOCH, cubes)) as batches:
        epochs = fit(
            network,
            batches,
            training_folder(file),
            epochs=plan.steps // EPOCH,
            settings=asdict(plan),
            validation=None,
            patience=None,
            on_epoch=lambda epoch: None,
            progress=deadline,
        )
    losses = [epoch["loss"] for epoch in epochs]
    used = f"{time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} s of the processors"
    log.info("%s: %s; losses %s", file.stem, used, np.round(losses, 3))
    with float32():
        same = new_network()
    same.set_weights(network.get_weights())
    stages = {**learnt.get("stages", {}), file.stem: asdict(plan)}
    record = training_record(scans, stages)
    training = {**learnt, **record, "scans": {**learnt.get("scans", {}), **record["scans"]}}
    save_model(same, ModelCard(NAME, "", "", asdict(PREPARATION), training=training), file)
    shutil.rmtree(training_folder(file))
    return file


def training_record(scans: Sequence[TrainingScan], stages: dict[str, Any]) -> dict[str, Any]:
    """Record what a segmentation network learnt from."""
    names = dict.fromkeys([*(scan.name for scan in scans), CUBES])
    return {
        "script": "LungNoduleSeg/Scripts/train_default_model.py",
        "scans": {name: SOURCES.get(name, "inserted lesions") for name in names},
        "filters": FILTERS,
        "stages": stages,
    }


def new_network(size: int | None = None) -> keras.Model:
    """Build the segmentation network."""
    return build_unet(size, PREPARATION.channels, FILTERS, batch_norm=True)


def for_whole_slices(network: keras.Model) -> keras.Model:
    """Copy a network for one input size: JAX would compile it anew for each size of the lungs."""
    with float32():
        copy = new_network(PREPARATION.size)
    copy.set_weights(network.get_weights())
    return copy


def marked_by(network: Network, scans: Sequence[TrainingScan]) -> Iterator[sitk.Image]:
    """Yield the probabilities of a network for each of scans."""
    whole = for_whole_slices(network) if isinstance(network, keras.Model) else network
    for scan in scans:
        yield nodule_probability(whole, PREPARATION, scan.hu, scan.lungs)


@contextmanager
def float32() -> Iterator[None]:
    """Build what is built here in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy(before)


def train_second(
    file: Path,
    networks: Sequence[Network],
    scans: Sequence[TrainingScan],
    transplants: Sequence[NoduleCube],
    deadline: Callable[[str, int, int], None],
) -> keras.Model:
    """Train a classifier on what each of several networks takes for nodules, or read it."""
    if file.exists():
        return load_model(file)[0]
    places = [
        [
            mistaken_places(marked, scan.nodules)
            for scan, marked in zip(scans, marked_by(network, scans), strict=True)
        ]
        for network in networks
    ]
    mistakes = [np.concatenate(of_scan) for of_scan in zip(*places, strict=True)]
    cubes = gather_cubes(scans, mistakes, CLASSIFIER, deadline, transplants)
    log.info("%d cubes of nodules, %d of others", len(cubes.nodules), len(cubes.others))
    cpu = time.process_time()
    with float32():  # processors take minutes for a 3-D convolution in bfloat16
        classifier, losses = train_classifier(cubes, CLASSIFIER, deadline)
    used = f"{time.process_time() - cpu:.0f} s of the processors"
    log.info("%s: %s; losses %s", file.stem, used, [round(loss, 3) for loss in losses])
    save_model(classifier, _classifier_card(), file)
    return classifier


def train_all(
    training: TrainingSet,
    output: Path,
    folds: Sequence[str],
    given: Sequence[Network],
    deadline: Callable[[str, int, int], None],
) -> None:
    """Train every stage whose file is not there.

    What sees everything is trained right after the first of those that are measured.

    Args:
        training: the scans and nodules.
        output: folder of the models.
        folds: outlined scans that are left out in turn.
        given: U-Nets that the classifiers go behind; if empty, they are trained here.
        deadline: called with each step; may raise `Cancelled`.
    """
    phantoms = [phantom_scan(seed) for seed in PHANTOMS]
    real = training.scans
    measured, *others = folds
    for left_out in (measured, None, *others):
        label = label_of(left_out)
        cubes = list(training.cubes)
        if left_out is not None:
            cubes, _ = training.split(fold_of(left_out))
        scans = [*(scan for name, scan in real.items() if name != left_out), *phantoms[:2]]
        networks = given
        if not given:
            start = None if left_out else output / f"{label_of(measured)}-fifth.keras"
            first = train_network(
                output / "first.keras",
                None,
                [*(real[name] for name in OTHERS), *phantoms],
                FIRST,
                training.split(*range(len(OUTLINED)))[0],
                deadline,
            )
            networks = train_unets(label, output, first, start, scans, cubes, deadline)
        train_second(output / f"{label}-classifier.keras", networks, scans, cubes, deadline)


def train_unets(
    label: str,
    output: Path,
    first: Path,
    start: Path | None,
    scans: Sequence[TrainingScan],
    cubes: Sequence[NoduleCube],
    deadline: Callable[[str, int, int], None],
) -> list[keras.Model]:
    """Train one U-Net after another, each where the one before was mistaken.

    Args:
        label: begins the names of their files.
        output: folder of the models.
        first: U-Net that they go on from.
        start: the trained one that a last stage goes on from; None for all stages but that.
        scans: to learn from.
        cubes: real nodules to transplant.
        deadline: called with each step; may raise `Cancelled`.

    Returns:
        The first one, the one before the last, and the last.
    """
    # Whole lungs come twice as often as parts of lungs and phantoms.
    weighted = [*scans, *(scan for scan in scans if scan.nodules is not None)]
    if start is None:
        second_file = output / f"{label}-second.keras"
        before = train_network(second_file, first, weighted, SECOND, cubes, deadline)
        plans = {"third": THIRD, "fourth": FOURTH, "fifth": FIFTH}
    else:
        before, plans = start, {"sixth": SIXTH}
    networks = [load_model(first)[0], load_model(before)[0]]
    for stage, plan in plans.items():
        file = output / f"{label}-{stage}.keras"
        if not file.exists():
            marked = zip(scans, marked_by(networks[-1], scans), strict=True)
            mistaken = {scan.name: with_mistakes(scan, by_network) for scan, by_network in marked}
            weighted = [mistaken[scan.name] for scan in weighted]
        before = train_network(file, before, weighted, plan, cubes, deadline)
        networks.append(load_model(before)[0])
    return [networks[0], *networks[-2:]]


def unseen_by(model: Path | None, with_classifier: bool) -> list[str]:
    """Return the outlined scans that a U-Net, alone or with its classifier, did not learn from."""
    training = read_card(model).training if model else {}
    seen = set(training.get("scans", {}))
    if with_classifier:
        seen.update(training.get("classifier", {}).get("scans", {}))
    return [name for name in OUTLINED if name not in seen]


def measure_all(
    training: TrainingSet,
    data: Path,
    output: Path,
    folds: Sequence[str],
    network_file: Path | None,
    second_file: Path | None,
) -> None:
    """Measure each pair on what it has not seen, and save the one that saw everything.

    Args:
        training: the scans and nodules.
        data: the folder that they come from.
        output: folder of the models.
        folds: outlined scans that were left out in turn.
        network_file: U-Net in place of those trained here; None for these.
        second_file: U-Net that gives the second opinion, or None.
    """
    from left_out import measure_left_out  # noqa: PLC0415 - not with a pack

    results: dict[str, Any] = {}
    second_opinion = ""
    second_has_not_seen = unseen_by(second_file, with_classifier=False)
    if second_file:
        second_opinion = second_file.name
        for name in (second_file.with_suffix(".json").name, *read_card(second_file).files):
            shutil.copyfile(second_file.with_name(name), output / name)
    for left_out in folds:
        label = label_of(left_out)
        model_file = output / f"{label}.keras"
        asked = second_opinion if left_out in second_has_not_seen else ""
        if not model_file.exists():
            network, own = load_model(network_file or output / f"{label}-fifth.keras")
            card = _card(own, f"{label}-classifier.keras", asked)
            save_model(network, card, model_file)
        measured = measure_left_out(model_file, data, training, left_out, output / label)
        if second_opinion and not asked:
            measured = {"note": f"without {second_opinion}, which has seen this scan", **measured}
        results[f"{left_out}, left out of training"] = measured
        log.info("%s", results)
    classifier = load_model(output / "all-classifier.keras")[0]
    save_model(classifier, _classifier_card(), output / f"{CLASSIFIER_NAME}.keras")
    network, own = load_model(network_file or output / "all-sixth.keras")
    card = _card(own, f"{CLASSIFIER_NAME}.keras", second_opinion)
    card = replace(card, results=results, training_cases=training_cases(training, data))
    save_model(network, card, output / f"{NAME}.keras")


def print_measures(
    model_file: Path, data: Path, training: TrainingSet, output: Path, folds: Sequence[str]
) -> None:
    """Measure a model on scans that it has not seen, and print that as JSON."""
    from left_out import measure_left_out  # noqa: PLC0415 - not with a pack

    measured = {
        name: measure_left_out(model_file, data, training, name, output / label_of(name))
        for name in folds
    }
    print(json.dumps(measured, indent=2))


def training_cases(training: TrainingSet, data: Path) -> list[str]:
    """SeriesInstanceUIDs of the scans of LIDC-IDRI of which something was learnt."""
    names = {cube.name for cube in training.cubes}
    patients = {name.split(".")[0] for name in OUTLINED}
    with (data / CUBES / "nodules.csv").open(encoding="utf-8", newline="") as stream:
        return sorted(
            {
                row["seriesuid"]
                for row in csv.DictReader(stream)
                if row["file"].split(".")[0] in names or row["patient_id"] in patients
            }
        )


def label_of(left_out: str | None) -> str:
    """Name the files of the networks that have not seen a scan."""
    return "all" if left_out is None else f"without-{left_out.split('.')[0]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack, train, or train and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="folder with the scans")
    parser.add_argument("-o", "--output", type=Path, help="folder for the models")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="write the data into one file")
    parser.add_argument("--from-pack", type=Path, metavar="FILE", help="train on such a file")
    parser.add_argument("--minutes", type=float, help="stop in time; started again, it goes on")
    parser.add_argument(
        "--measure",
        type=Path,
        metavar="MODEL",
        help="train nothing; measure another model on the scans that it has not seen",
    )
    parser.add_argument(
        "--network",
        type=Path,
        metavar="MODEL",
        help="train no U-Net; put the classifiers behind this",
    )
    parser.add_argument(
        "--second-opinion", type=Path, metavar="MODEL", help="U-Net that looks at what is marked"
    )
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="train the U-Net in bfloat16: a third faster where lscpu shows avx512_bf16",
    )
    options = parser.parse_args(arguments)
    if (options.data is None) == (options.from_pack is None):
        parser.error("give either the folder with the scans or --from-pack FILE")
    if (options.pack is None) == (options.output is None):
        parser.error("give either --pack FILE or --output FOLDER")
    if options.measure and options.data is None:
        parser.error("--measure needs the folder with the scans")
    if options.pack and options.pack.exists():
        parser.error(f"{options.pack} exists: choose another name")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folds = unseen_by(options.measure or options.network, bool(options.measure))
    if not folds:
        parser.error("the model has seen all outlined scans")
    training = (
        read_pack(options.from_pack) if options.from_pack else read_training_set(options.data)
    )
    log.info("%d scans and %d nodules are ready", len(training.scans), len(training.cubes))
    if options.pack:
        write_pack(training, options.pack)
        log.info("%s has %.1f MB", options.pack, options.pack.stat().st_size / 1e6)
        return
    if options.measure:
        print_measures(options.measure, options.data, training, options.output, folds)
        return
    files = options.network, options.second_opinion
    given = [load_network(file)[0] for file in files if file] if options.network else []
    if options.bfloat16:
        keras.config.set_dtype_policy("mixed_bfloat16")
    options.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes if options.minutes else None

    def deadline(stage: str, done: int, total: int) -> None:
        if done % 100 == 0:
            log.info("%s %d/%d", stage, done, total)
        if end is not None and time.monotonic() > end:
            raise Cancelled

    try:
        train_all(training, options.output, folds, given, deadline)
    except Cancelled:
        log.info("the time is over; started again, it goes on")
        sys.exit(3)
    if options.data is not None:
        measure_all(training, options.data, options.output, folds, *files)


def _card(own: ModelCard, classifier: str, second_opinion: str) -> ModelCard:
    """Describe a U-Net, given what it learnt from, with its partners."""
    return ModelCard(
        name=NAME,
        summary="U-Net of five levels that marks lung nodules in axial chest CT, five slices at "
        "a time; a second U-Net and a small 3-D network check each mark.",
        label="probability that a voxel belongs to a lung nodule of 4 to 30 mm",
        licence="MIT",
        citation=CITATION,
        preparation=asdict(PREPARATION),
        rules=asdict(RULES),
        training={**own.training, "classifier": _classifier_card().training},
        limitations=[
            "Trained on the lungs of five patients, with nodules of some 350 others transplanted "
            "into them and artificial lesions: a research prototype.",
            "Figures on inserted lesions and transplanted nodules are not figures on patients.",
            "The probabilities of the rules were chosen on the few scans left out of training: "
            "expect more false positives elsewhere.",
            "Lesions under 6 mm, on the pleura, beside vessels and of ground glass are often "
            "missed, as are masses on the pleura that the lung segmentation cuts off.",
            "Nodules under 4 mm and masses over 30 mm were not in training; the classifier also "
            "looks at a candidate wider than 28 mm at a scale where it is 20 mm wide.",
            "Neither U-Net was trained on cavities: those with a wall of some 2.5 mm and more all "
            "around are filled before; with a thinner or open wall, or in slices too thick to show "
            "it, the nodule is missed or measured too small.",
            "Nothing outside the lung segmentation can be found.",
        ],
        classifier=classifier,
        second_opinion=second_opinion,
    )


def _classifier_card() -> ModelCard:
    return ModelCard(
        name=CLASSIFIER_NAME,
        summary="Small 3-D network that separates nodules from the U-Net's false positives.",
        label="probability that there is a nodule in the middle of the cube",
        licence="MIT",
        citation=CITATION,
        preparation={},
        training={
            "script": "LungNoduleSeg/Scripts/train_default_model.py",
            "plan": asdict(CLASSIFIER),
            "scans": {**SOURCES, "phantoms": f"inserted lesions; seeds {PHANTOMS[:2]}"},
            "cubes": "inserted lesions, transplanted and outlined nodules against false "
            "candidates of three U-Nets, vessels and pleura",
        },
        limitations=["For use with the U-Net that names it only; results are in that card."],
    )


if __name__ == "__main__":
    main()
