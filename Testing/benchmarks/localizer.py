"""How far the localizer is off on the annotated scans, as they are and changed in many ways.

    python Testing/benchmarks/localizer.py [DATA] [--networks FOLDER] [--stress]

DATA is ../shared/data unless given. FOLDER holds the networks that train_default_localizer.py made
with each patient left out; without it the bundled network is tried, which has seen six of the nine
scans. With --stress come scans that are cut, mirrored, upside down, thick or noisy, and things that
are no adult's CT: what is said of them, and whether it warns.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, LANDMARKS
from CTSliceToolsLib.localizer.anchors import examine
from CTSliceToolsLib.localizer.prediction import (
    DEFAULT_MODEL,
    UNKNOWN_MM,
    Model,
    fit_slices,
    open_model,
    predict_locations,
)
from CTSliceToolsLib.localizer.scan_fit import ScanFit, fit_scan
from CTSliceToolsLib.slice_image import slice_images

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "CTSliceTools" / "Scripts"
sys.path.insert(0, str(SCRIPTS))
from train_default_localizer import PATIENTS  # type: ignore[import-not-found]  # noqa: E402

CROP_MM = 100.0
CROPS = 4
THICK_MM = 8.0
WARNED_MM = 30.0
"""An error above this is to come with a warning."""

MARKS = ("<!-- written by Testing/benchmarks/localizer.py -->", "<!-- to here -->")

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float64]


class Slices(NamedTuple):
    """A scan: slice images, their LPS z in mm, LPS z of its landmarks by name."""

    name: str
    pictures: Pictures
    z_mm: Floats
    truth: dict[str, float]


class Judged(NamedTuple):
    """A landmark: errors in mm of slices, fit and fit with anchors; the interval; any warning."""

    name: str
    raw: float
    fitted: float
    anchored: float
    uncertainty_mm: float
    warned: bool


def main() -> None:
    """Print the tables in Markdown, or put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--stress", action="store_true")
    parser.add_argument("--into", type=Path, help="page with the two lines of MARKS")
    options = parser.parse_args()
    scans = list(read(options.data, options.networks))
    judgements = [(scan.name, *judge(scan, model)) for scan, model in scans]
    parts = [by_scan(judgements), by_landmark([one for _, some, _ in judgements for one in some])]
    if options.stress:
        parts += [stress(scans), "\n".join(strange(scans[0][0]))]
    text = "\n\n".join(parts)
    print(text)
    if options.into is not None:
        page = options.into.read_text(encoding="utf-8")
        before, rest = page.split(MARKS[0])
        _, after = rest.split(MARKS[1])
        page = f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}"
        options.into.write_text(page, encoding="utf-8")


def read(data: Path, networks: Path | None) -> Iterator[tuple[Slices, Model]]:
    """Read the annotated scans, each with the network to try on it."""
    patient_of = {scan: patient for patient, scans in PATIENTS.items() for scan in scans}
    for file in (data / "landmarks.json", SCRIPTS / "landmarks.json"):
        for name, places in json.loads(file.read_text(encoding="utf-8")).items():
            model: Path = DEFAULT_MODEL
            if networks is not None and name in patient_of:
                model = networks / f"without-{patient_of[name]}.json"
                if not model.exists():
                    continue
            pictures, z_mm = slice_images(read_ct(data / name).image)
            truth = {landmark: place["z_mm"] for landmark, place in places.items()}
            yield Slices(name, pictures, z_mm, truth), model


def judge(scan: Slices, model: Model) -> tuple[list[Judged], ScanFit]:
    """Hold what is said of a scan against its landmarks that are in view."""
    raw = predict_locations(scan.pictures, open_model(model)[0])
    alone, fit = (
        fit_scan(scan.z_mm, raw),
        fit_slices([examine(scan.pictures, scan.z_mm)], scan.z_mm, raw),
    )
    order = np.argsort(scan.z_mm)
    z = scan.z_mm[order]
    half = float(np.ptp(z)) / max(len(z) - 1, 1) / 2
    judged = []
    for name, truth in scan.truth.items():
        if not z[0] - half <= truth <= z[-1] + half:
            continue
        place = LANDMARKS.index(LANDMARK_BY_NAME[name])
        here = float(np.interp(truth, z, raw[order]))
        judged.append(
            Judged(
                name,
                truth_at(scan, here) - truth,
                float(alone.landmark_z_mm[place]) - truth,
                float(fit.landmark_z_mm[place]) - truth,
                float(fit.uncertainty_mm[place]),
                bool(fit.warnings),
            )
        )
    return judged, fit


def truth_at(scan: Slices, location: float) -> float:
    """LPS z of a location by the landmarks of a scan, which go on beyond with their last slope."""
    names = sorted(scan.truth, key=lambda name: LANDMARK_BY_NAME[name].location)
    at = np.array([LANDMARK_BY_NAME[name].location for name in names])
    z = np.array([scan.truth[name] for name in names])
    k = int(np.clip(np.searchsorted(at, location) - 1, 0, len(at) - 2))
    return float(z[k] + (location - at[k]) * (z[k + 1] - z[k]) / (at[k + 1] - at[k]))


def markdown(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Write a table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def mean_mm(judged: list[Judged]) -> tuple[str, ...]:
    """Mean absolute errors in three ways, the largest of the last, the share in its interval."""
    if not judged:
        return ("–",) * 5
    ways = [[abs(getattr(one, way)) for one in judged] for way in ("raw", "fitted", "anchored")]
    inside = np.mean([abs(one.anchored) <= one.uncertainty_mm for one in judged])
    return (*(f"{np.mean(way):.1f}" for way in ways), f"{max(ways[2]):.0f}", f"{inside:.0%}")


WAYS = ("each slice by itself", "fit of the network", "fit with anchors", "largest", "in 95 %")


def by_scan(judgements: list[tuple[str, list[Judged], ScanFit]]) -> str:
    """Tell the errors in mm and the warnings of each scan."""
    return markdown(
        ("scan", *WAYS, "warnings"),
        [(name, *mean_mm(some), " ".join(fit.warnings)) for name, some, fit in judgements],
    )


def by_landmark(judged: list[Judged]) -> str:
    """Tell the errors in mm by landmark and region."""
    names = list(LANDMARK_BY_NAME)
    first = names.index("T1")
    groups = {name: {name} for name in names}
    groups["**head and neck, to C7**"] = set(names[:first])
    groups["**chest and abdomen, from T1**"] = set(names[first:])
    groups["**all**"] = set(names)
    some = {
        group: [one for one in judged if one.name in members] for group, members in groups.items()
    }
    return markdown(
        ("landmark", "scans", *WAYS),
        [(group, len(ones), *mean_mm(ones)) for group, ones in some.items()],
    )


def stress(scans: list[tuple[Slices, Model]]) -> str:
    """Tell what becomes of the errors after changes."""
    rng = np.random.default_rng(0)
    changes: dict[str, Callable[[Slices], list[Slices]]] = {
        "as it is": lambda scan: [scan],
        f"{CROPS} random crops of {CROP_MM / 10:g} cm": lambda scan: crops(scan, rng),
        "mirrored left for right": lambda scan: [scan._replace(pictures=scan.pictures[:, :, ::-1])],
        f"slices of {THICK_MM:g} mm": thick,
        "noise doubled": lambda scan: [noisy(scan, rng)],
        "upside down": lambda scan: [scan._replace(pictures=scan.pictures[::-1])],
    }
    rows: list[tuple[object, ...]] = []
    for name, change in changes.items():
        some: list[Judged] = []
        count = warned = 0
        for scan, model in scans:
            for changed in change(scan):
                judged, fit = judge(changed, model)
                count, warned = count + 1, warned + bool(fit.warnings)
                some += judged
        located = [one for one in some if one.uncertainty_mm <= UNKNOWN_MM]
        silent = sum(abs(one.anchored) > WARNED_MM and not one.warned for one in located)
        *_, mean, largest, inside = mean_mm(located)
        rows.append((name, count, warned, len(some), len(located), mean, largest, inside, silent))
    return markdown(
        (
            "change",
            "scans",
            "with a warning",
            "landmarks",
            "located",
            "mean mm",
            "largest",
            "in 95 %",
            f"silently over {WARNED_MM:g} mm",
        ),
        rows,
    )


def strange(scan: Slices) -> Iterator[str]:
    """Tell what is said of what is no adult's CT."""
    for name, one in strangers(scan, np.random.default_rng(0)).items():
        _, fit = judge(one, DEFAULT_MODEL)
        located = int(np.count_nonzero(fit.uncertainty_mm <= UNKNOWN_MM))
        yield f"- {name}, {located} landmarks located: {' '.join(fit.warnings) or 'no warning'}"


def crops(scan: Slices, rng: np.random.Generator) -> list[Slices]:
    """Cut pieces at random places."""
    cut = []
    for _ in range(CROPS):
        low = rng.uniform(scan.z_mm.min(), max(scan.z_mm.min(), scan.z_mm.max() - CROP_MM))
        inside = (scan.z_mm >= low) & (scan.z_mm <= low + CROP_MM)
        cut.append(scan._replace(pictures=scan.pictures[inside], z_mm=scan.z_mm[inside]))
    return cut


def thick(scan: Slices) -> list[Slices]:
    """Average neighbouring slices."""
    count = max(1, round(THICK_MM * (len(scan.z_mm) - 1) / float(np.ptp(scan.z_mm))))
    starts = range(0, len(scan.z_mm) - count + 1, count)
    pictures = np.stack([scan.pictures[k : k + count].mean(0) for k in starts]).astype(np.uint8)
    z_mm = np.array([scan.z_mm[k : k + count].mean() for k in starts])
    return [scan._replace(pictures=pictures, z_mm=z_mm)]


def noisy(scan: Slices, rng: np.random.Generator) -> Slices:
    """Add as much noise as brings its deviation in soft tissue to the double."""
    soft = (scan.pictures > 150) & (scan.pictures < 180)
    rough = scan.pictures - ndimage.uniform_filter(scan.pictures.astype(np.float32), (0, 3, 3))
    sd = 1.4826 * np.median(np.abs(rough[soft])) * np.sqrt(3)
    added = scan.pictures + rng.normal(0, sd, scan.pictures.shape)
    return scan._replace(pictures=added.clip(0, 255).astype(np.uint8))


def strangers(scan: Slices, rng: np.random.Generator) -> dict[str, Slices]:
    """Make what is no CT of an adult's trunk."""
    z_mm = np.arange(0, 300, 3.0)
    x, y = np.meshgrid(*(np.arange(256) * 2.0 - 256,) * 2)
    water = np.broadcast_to(np.where(np.hypot(x, y) < 100, 159, 0), (100, 256, 256))
    legs = np.broadcast_to(
        np.where(
            np.hypot(abs(x) - 100, y) < 17, 255, np.where(np.hypot(abs(x) - 100, y) < 70, 165, 0)
        ),
        (100, 256, 256),
    )
    shrunk = ndimage.zoom(scan.pictures, (1, 0.25, 0.25), order=1)
    small = np.zeros_like(scan.pictures)
    small[:, 96:160, 96:160] = shrunk
    resonance = scan.pictures.astype(float) * 0.3 + 159 + rng.normal(0, 3, scan.pictures.shape)
    made = {
        "a water phantom": (water, z_mm),
        "two legs": (legs, z_mm),
        "noise": (rng.integers(0, 256, (100, 256, 256)), z_mm),
        "an animal of a quarter of the size": (small, scan.z_mm / 4),
        "MR, in values of its own": (resonance.clip(0, 255), scan.z_mm),
    }
    return {
        name: Slices(
            name, np.asarray(pictures).astype(np.uint8), heights, {"T1": 0.0, "L1": -300.0}
        )
        for name, (pictures, heights) in made.items()
    }


if __name__ == "__main__":
    main()
