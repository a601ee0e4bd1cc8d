"""How long a run takes and how much memory it needs, as earlier runs on this machine tell."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import parse_json, replace_text

SETTINGS_FOLDER = "CTLUNGSCREENING_SETTINGS"
"""Environment variable with another folder for what is remembered between runs."""

FILE = "run-costs.json"

GIVEN_LUNGS = "given"
"""Stands for the method of runs that need not find the lungs, see `run_kind`."""

REMEMBERED = 10
"""Runs of a kind, the last ones: a machine may change."""

START_S, SECONDS_PER_MEGAVOXEL = 5.0, 0.41
START_GIB, GIB_PER_MEGAVOXEL = 0.8, 0.011
"""Of a run with the bundled model on two cores, which other runs are some multiple of: 1.17 GiB and
17.5 s of the processors for 133 slices of 512×512 (LIDC-IDRI-0001, `Testing/benchmarks/run.py`)."""


@dataclass(frozen=True)
class RunCost:
    """What a run took.

    Attributes:
        megavoxels: of the scan.
        seconds: from the start of the command to its end.
        gib: of memory, at the peak.
    """

    megavoxels: float
    seconds: float
    gib: float


@dataclass(frozen=True)
class ExpectedCost:
    """What a run will take.

    Attributes:
        seconds: likewise.
        gib: likewise.
        runs: how many earlier runs on this machine say so; 0: as on our own machine.
    """

    seconds: float
    gib: float
    runs: int


def expected_cost(
    voxels: int, kind: str, by_card: Mapping[str, float] | None = None
) -> ExpectedCost:
    """Tell what a run will take.

    Earlier runs were some multiple of what our own machine would have taken; the median multiple
    is what is expected of the next, whatever its size.

    Args:
        voxels: of the scan.
        kind: what else matters, see `run_kind`.
        by_card: what the model's card says, see `ModelCard.cost`; it counts until there are runs.
    """
    earlier = _read().get(kind, [])
    runs = len(earlier)
    if not earlier and by_card:
        with suppress(KeyError, TypeError):
            earlier = [RunCost(*(by_card[key] for key in ("megavoxels", "seconds", "gib")))]
    usual = usual_cost(voxels / 1e6)
    times = [one.seconds / usual_cost(one.megavoxels).seconds for one in earlier]
    sizes = [one.gib / usual_cost(one.megavoxels).gib for one in earlier]
    return ExpectedCost(
        round(usual.seconds * median(times or [1.0]), 1),
        round(usual.gib * median(sizes or [1.0]), 2),
        runs,
    )


def remember_cost(voxels: int, kind: str, seconds: float, gib: float) -> None:
    """Remember what a run took; where nothing can be written it is forgotten."""
    costs = _read()
    cost = RunCost(round(voxels / 1e6, 3), round(seconds, 1), round(gib, 3))
    costs[kind] = [*costs.get(kind, []), cost][-REMEMBERED:]
    text = json.dumps({key: [asdict(one) for one in of] for key, of in costs.items()}, indent=1)
    with suppress(OSError, InputError):
        file = settings_folder() / FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, text + "\n")


def run_kind(lungs: str, model_sha256: str) -> str:
    """Name runs that cost alike: those with the same way to the lungs and the same model."""
    return f"{lungs} {model_sha256[:12]}"


def peak_gib() -> float:
    """Give the most memory that this process has had so far, GiB."""
    if sys.platform == "win32":
        import psutil  # noqa: PLC0415 - not there in Slicer until packages are installed

        return float(psutil.Process().memory_info().peak_wset / 2**30)
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 2 ** (30 if sys.platform == "darwin" else 20))


def settings_folder() -> Path:
    """Give the folder of the user's settings of this project; it need not be there."""
    if given := os.environ.get(SETTINGS_FOLDER):
        return Path(given)
    import platformdirs  # noqa: PLC0415 - not there in Slicer until packages are installed

    return platformdirs.user_state_path("CTLungScreening", appauthor=False)


def usual_cost(megavoxels: float) -> RunCost:
    """Give what a run took on our own machine."""
    return RunCost(
        megavoxels,
        START_S + SECONDS_PER_MEGAVOXEL * megavoxels,
        START_GIB + GIB_PER_MEGAVOXEL * megavoxels,
    )


def _read() -> dict[str, list[RunCost]]:
    """What is remembered; nothing if the file is missing or damaged."""
    try:
        data = parse_json((settings_folder() / FILE).read_text(encoding="utf-8"))
        return {str(kind): _costs(runs) for kind, runs in data.items()}
    except (OSError, ImportError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _costs(runs: Sequence[dict[str, Any]]) -> list[RunCost]:
    costs = [
        RunCost(*(float(run[key]) for key in ("megavoxels", "seconds", "gib"))) for run in runs
    ]
    return [one for one in costs if min(one.megavoxels, one.seconds, one.gib) > 0]
