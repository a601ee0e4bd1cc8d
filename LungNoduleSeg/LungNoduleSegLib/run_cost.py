"""Estimate time and memory of a run from earlier runs on this machine."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.files import replace_text
from CTLungScreeningLib.json_files import parse_json

SETTINGS_FOLDER = "CTLUNGSCREENING_SETTINGS"
"""Environment variable with another folder for the recorded costs."""

FILE = "run-costs.json"

EXTERNAL_LUNGS = "given"
"""Method of runs with an external lung mask, see `run_kind`."""

KEPT_RUNS = 10
"""Number of latest runs of a kind that are kept."""

START_S, SECONDS_PER_MEGAVOXEL = 8.4, 0.04
"""Duration with the bundled model on two cores, the reference for other runs: 9.8 s for the 133
slices of 512×512 of LIDC-IDRI-0001 (`Testing/benchmarks/run.py`). Resampled to 300 and 480 slices,
it takes a quarter and a third more processor time: the network sees the same millimetres."""

START_GIB, GIB_PER_MEGAVOXEL = 0.8, 0.011
"""Memory allowed for it: a quarter GiB more than the 0.92, 1.39 and 1.94 GiB that these three take,
as a batch's worker holds Dask too."""


@dataclass(frozen=True)
class RunCost:
    """The cost of a run.

    Attributes:
        megavoxels: size of the scan.
        seconds: from start to end of the command.
        gib: peak memory.
    """

    megavoxels: float
    seconds: float
    gib: float


@dataclass(frozen=True)
class ExpectedCost:
    """The expected cost of a run.

    Attributes:
        seconds: as in `RunCost`.
        gib: as in `RunCost`.
        runs: number of earlier runs on this machine; 0 for the reference cost.
    """

    seconds: float
    gib: float
    runs: int


def expected_cost(
    voxels: int, kind: str, by_card: Mapping[str, float] | None = None
) -> ExpectedCost:
    """Estimate the cost of a run.

    It is the reference cost for the scan's size times the median ratio of earlier runs to theirs.

    Args:
        voxels: of the scan.
        kind: of the run, see `run_kind`.
        by_card: see `ModelCard.cost`; used until there are runs.
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


def record_cost(voxels: int, kind: str, seconds: float, gib: float) -> None:
    """Record the cost of a run, if the settings folder is writable."""
    costs = _read()
    cost = RunCost(round(voxels / 1e6, 3), round(seconds, 1), round(gib, 3))
    costs[kind] = [*costs.get(kind, []), cost][-KEPT_RUNS:]
    text = json.dumps({key: [asdict(one) for one in of] for key, of in costs.items()}, indent=1)
    with suppress(OSError, InputError):
        file = settings_folder() / FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, text + "\n")


def run_kind(lungs: str, model_sha256: str) -> str:
    """Identify runs of similar cost: those with the same lung method and model."""
    return f"{lungs} {model_sha256[:12]}"


def peak_gib() -> float:
    """Return the peak memory of this process so far, GiB."""
    if sys.platform == "win32":
        import psutil  # noqa: PLC0415 - not installed in Slicer at first

        return float(psutil.Process().memory_info().peak_wset / 2**30)
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 2 ** (30 if sys.platform == "darwin" else 20))


def settings_folder() -> Path:
    """Return the folder of the user's settings, which may not exist yet.

    Raises:
        InputError: if this user has no home folder.
    """
    if folder := os.environ.get(SETTINGS_FOLDER):
        return Path(folder)
    variable, usual = {
        "win32": ("LOCALAPPDATA", "AppData/Local"),
        "darwin": ("", "Library/Application Support"),
    }.get(sys.platform, ("XDG_STATE_HOME", ".local/state"))
    try:
        return Path(os.environ.get(variable) or Path.home() / usual) / "CTLungScreening"
    except RuntimeError as error:
        raise InputError(
            f"This user has no home folder: set {SETTINGS_FOLDER} to a folder for settings."
        ) from error


def usual_cost(megavoxels: float) -> RunCost:
    """Return the reference cost of a run."""
    return RunCost(
        megavoxels,
        START_S + SECONDS_PER_MEGAVOXEL * megavoxels,
        START_GIB + GIB_PER_MEGAVOXEL * megavoxels,
    )


def _read() -> dict[str, list[RunCost]]:
    """The recorded costs; empty if the file is missing or damaged."""
    try:
        data = parse_json((settings_folder() / FILE).read_bytes())
        return {str(kind): _costs(runs) for kind, runs in data.items()}
    except DAMAGE:
        return {}


def _costs(runs: Sequence[dict[str, Any]]) -> list[RunCost]:
    costs = [
        RunCost(*(float(run[key]) for key in ("megavoxels", "seconds", "gib"))) for run in runs
    ]
    return [one for one in costs if min(one.megavoxels, one.seconds, one.gib) > 0]
