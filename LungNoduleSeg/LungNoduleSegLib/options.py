"""Options of a run, and the models that come with the package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.options import Option
from LungNoduleSegLib.lungs.labels import LungMethod

_MODELS = Path(__file__).parent / "Resources" / "Models"

DEFAULT_MODEL = _MODELS / "nodule-unet.onnx"
"""Finds nodules."""

SUSPICION_MODEL = _MODELS / "nodule-suspicion.ubj"
"""Rates how suspicious a nodule is, as radiologists do."""

KEEP_ALL = dict.fromkeys(
    ("min_probability", "min_diameter_mm", "min_lung_fraction", "max_elongation")
)
"""Fields of `NoduleRules` without which every finding is kept."""


@dataclass(frozen=True)
class RunOptions:
    """How the lungs and nodules of a scan are found, by `run`, `batch` and the panel."""

    lungs: Annotated[
        LungMethod, Option("Method of lung segmentation; the last two are separate programs.")
    ] = LungMethod.VOLUME
    model: Annotated[
        Path | None,
        Option("A model's name, see `models list`, or one of its files; default: bundled."),
    ] = None
    threshold: Annotated[
        float | None, Option("Probability of a nodule's voxels; default: the model's.", 0, 1)
    ] = None
    keep_all: Annotated[
        bool, Option("Keep uncertain, small, tubular and extrapulmonary findings.")
    ] = False
    device: Annotated[
        Device | None, Option("Device for the networks; default: a GPU if available.")
    ] = None

    @property
    def rules(self) -> dict[str, float | None]:
        """The fields of `NoduleRules` that override the model's card."""
        rules: dict[str, float | None] = {}
        if self.threshold is not None:
            rules["threshold"] = self.threshold
        return rules | KEEP_ALL if self.keep_all else rules


BUNDLED = RunOptions()
"""The bundled model and lung segmentation."""


@dataclass(frozen=True)
class BatchOptions:
    """Options of `batch` besides those of each run."""

    workers: Annotated[
        int | None, Option("Parallel scans; default: as memory and cores allow.", 1)
    ] = None
    scheduler: Annotated[
        str | None, Option("Address of your Dask scheduler, such as tcp://host:8786.")
    ] = None


@dataclass(frozen=True)
class DiceOptions:
    """Options of `evaluate dice`."""

    resample: Annotated[bool, Option("Resample predictions to the grid of the truth.")] = False


@dataclass(frozen=True)
class DetectionOptions:
    """Options of `evaluate detection`."""

    excluded: Annotated[Path | None, Option("CSV of findings to ignore, in the same format.")] = (
        None
    )
    max_marks: Annotated[
        int, Option("Limit per scan, as in the challenge, the most probable ones; 0: all.", 0)
    ] = 100
    resamples: Annotated[int, Option("Resamples for the confidence band; 0: none.", 0)] = 1000
    seed: Annotated[int, Option("Of the resamples.", 0)] = 0


@dataclass(frozen=True)
class SyntheticOptions:
    """Options of `evaluate synthetic`."""

    nodules: Annotated[
        Path | None, Option("Mask of the scan's own nodules, which are ignored.")
    ] = None
    rounds: Annotated[int, Option("Copies of the scan, each with 40 lesions.", 1, 100)] = 3
    seed: Annotated[int, Option("Of all random numbers.", 0)] = 0
