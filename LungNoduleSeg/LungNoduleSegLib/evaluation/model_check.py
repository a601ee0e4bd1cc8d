"""Check a model on a phantom: orientation, findings and cost."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.reading.ct_scan import CTScan
from LungNoduleSegLib.detectors.models import find_card
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.phantom.chest import LesionRequest, PhantomSpec, Place, make_phantom
from LungNoduleSegLib.run_cost import usual_cost
from LungNoduleSegLib.segmenter import NoduleSegmenter

SPEC = PhantomSpec(
    size=(256, 256, 100),
    spacing=(1.4, 1.4, 3.0),
    lesions=(LesionRequest(20), LesionRequest(12), LesionRequest(9, place=Place.VESSEL)),
)


def check_model(model: Path) -> str:
    """Run a model on a phantom.

    Args:
        model: one of its files, or its name.

    Returns:
        The result as text.

    Raises:
        InputError: if the model cannot be run, or finds the lesions at mirrored positions, which
            means that it mixes up axes or sides.
    """
    card = find_card(model)
    phantom = make_phantom(SPEC)
    began = time.perf_counter()
    found = NoduleSegmenter(model).apply(CTScan(phantom.image, Path("phantom")))
    seconds = time.perf_counter() - began
    truth = [lesion.centre for lesion in phantom.lesions]
    radii = [lesion.diameter_mm / 2 for lesion in phantom.lesions]
    hits = _hits(found.nodules, truth, radii)
    middle = phantom.image.TransformContinuousIndexToPhysicalPoint(
        [(n - 1) / 2 for n in phantom.image.GetSize()]
    )
    for axis, words in enumerate(("left and right", "front and back", "head and feet")):
        turned = np.array(truth)
        turned[:, axis] = 2 * middle[axis] - turned[:, axis]
        if _hits(found.nodules, turned.tolist(), radii) > hits:
            raise InputError(
                f"{card.name} finds the lesions with {words} exchanged: check the axes in its "
                "card, or how its program handles the orientation."
            )
    megavoxels = phantom.image.GetNumberOfPixels() / 1e6
    usual = usual_cost(megavoxels).seconds
    orientation = "in the right orientation" if hits else "which does not show its orientation"
    sentences = [
        f"{card.name} found {hits} of {counted(len(truth), 'lesion')} and "
        f"{counted(len(found.nodules) - hits, 'false positive')}, {orientation}.",
        f"The run took {seconds:.1f} s for {megavoxels:.1f} million voxels; "
        f"the bundled model takes about {usual:.0f} s on the reference machine.",
    ]
    if "seconds" in card.cost and card.cost.get("megavoxels"):
        stated = card.cost["seconds"] * megavoxels / card.cost["megavoxels"]
        sentences.append(f"Its card states {stated:.1f} s for the same size.")
    return "\n".join([*sentences, *(f"Note: {note}" for note in found.notes)])


def _hits(
    nodules: Sequence[Nodule], centres: Sequence[Sequence[float]], radii: Sequence[float]
) -> int:
    """Number of lesions that contain the centre of a nodule."""
    places = np.array([(one.x, one.y, one.z) for one in nodules]).reshape(-1, 3)
    return sum(
        bool((np.linalg.norm(places - np.array(centre), axis=1) <= radius).any())
        for centre, radius in zip(centres, radii, strict=True)
    )
