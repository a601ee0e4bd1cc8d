"""Compute a table of features for many scans, runs or segmentations."""

import csv
import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk
from scipy import ndimage

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import Cancelled, InputError, sentence_of
from CTLungScreeningLib.files import made_folder, private_folder, refuse_links, replace_text
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import IndexedScan
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES, read_labels, volume_parts
from CTLungScreeningLib.staging import only_writer
from LungNoduleSegLib.batch.cases import cases_below
from LungNoduleSegLib.lungs.segmentation import require_labels
from LungNoduleSegLib.results.reading import RECORD, is_run, read_findings, read_record
from LungNoduleSegLib.risk.features import (
    IDENTIFIERS,
    NODULE_FEATURES,
    SCAN_FEATURES,
    Features,
    ScanFeatures,
    Source,
    components,
    nodule_features,
    scan_features,
)

CT_BELOW = -200
"""A volume with values below this is a CT."""

_MOST_LABELS = 200
"""A label image of more is a picture."""

_WIDEST_MM = 150.0
"""No nodule or mass is wider; a lung is."""


def find_scans(folder: Path, notes: list[str] | None = None) -> dict[str, Path | IndexedScan]:
    """Find the results of runs, segmentations and CT scans in a folder, by name, sorted.

    They are searched for at any depth, but not in hidden folders nor through links to folders. A
    folder with `run.json` is the result of a run; beside these, every CT series and every volume
    file is a scan or a segmentation, see `batch.cases.cases_below`; `notes` as there.

    Returns:
        What `features_of` takes, by path below the folder; a series by its folder, and its
        SeriesInstanceUID too if others are in the same.

    Raises:
        InputError: if there are none.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist: name a folder of scans, masks or results.")
    if folder.is_file() or is_run(folder):
        return {folder.name: folder}
    found: dict[str, Path | IndexedScan] = {
        _name_below(folder, run): run for run in _runs_below(folder)
    }
    cases = list(cases_below(folder, required=False, notes=notes))
    series = Counter(case.place for case in cases)
    for case in cases:
        name = _name_below(folder, case.place)
        if isinstance(case.source, IndexedScan) and series[case.place] > 1:
            name += f"/{case.source.name}"
        found[name] = case.source
    if not found:
        raise InputError(
            f"{folder} has no scan, segmentation or result of a run: choose another folder."
        )
    return dict(sorted(found.items()))


def features_of(
    source: Path | IndexedScan, name: str, runs: Path, progress: ProgressCallback = silent
) -> ScanFeatures:
    """Compute the features of one scan.

    Args:
        source: the folder of a run; a mask, label image or probability map; or a CT scan, which is
            first segmented with the bundled model.
        name: of the scan in the table.
        runs: folder for the results of such runs; existing ones are reused.
        progress: callback, see `CTLungScreeningLib.progress`.

    Raises:
        InputError: if it cannot be read as any of these.
    """
    results = results_of(source, name, runs, progress)
    if results is not None:
        return _of_run(results, name, Source.RUN if results == source else Source.CT)
    assert isinstance(source, Path)  # else it has been segmented
    image = _read_volume(source)
    lowest = float(sitk.GetArrayViewFromImage(image).min())
    if math.isnan(lowest):
        raise InputError(f"{source} has voxels that are not numbers (NaN): export it again.")
    if lowest < 0:
        raise InputError(
            f"{source} has values down to {lowest:g} and is neither a CT in HU nor a segmentation: "
            "use a mask, a label image or probabilities from 0 to 1."
        )
    if sitk.GetArrayViewFromImage(image).max() > 1:
        require_labels(image, _MOST_LABELS, str(source), "nodules")
    parts = components(image)
    widest = _widest_mm(parts)
    if widest > _WIDEST_MM:
        raise InputError(
            f"{source} is not a segmentation of nodules: what it marks is {widest:.0f} mm wide in "
            "one piece; use a mask, a label image or probabilities of the nodules."
        )
    nodules = nodule_features(parts)
    features = scan_features(image, nodules.values())
    return ScanFeatures(name, "", "", Source.SEGMENTATION, features, nodules)


def results_of(
    source: Path | IndexedScan, name: str, runs: Path, progress: ProgressCallback = silent
) -> Path | None:
    """Return the folder of a run: `source` itself, or that of a CT segmented now, else None.

    Arguments and errors are those of `features_of`.
    """
    if isinstance(source, IndexedScan):
        return _segmented(source, name, runs, progress)
    if is_run(source):
        return source
    if source.is_file() and source.name.lower().endswith(VOLUME_SUFFIXES):
        image = _read_volume(source)
        if not sitk.GetArrayViewFromImage(image).min() < CT_BELOW:
            return None
    return _segmented(source, name, runs, progress)


def _widest_mm(labels: sitk.Image) -> float:
    """The longest side of the boxes around labels, 0 without any."""
    boxes = ndimage.find_objects(sitk.GetArrayViewFromImage(labels))
    spacing = labels.GetSpacing()[::-1]
    sides = (
        (side.stop - side.start) * mm
        for box in boxes
        for side, mm in zip(box, spacing, strict=True)
    )
    return max(sides, default=0.0)


def _name_below(folder: Path, place: Path) -> str:
    return folder.name if place == folder else place.relative_to(folder).as_posix()


def _runs_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        if RECORD in names:
            yield Path(parent)
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]


def _of_run(folder: Path, name: str, source: Source) -> ScanFeatures:
    """Compute the features from the files of a run."""
    lungs, labels, rows = read_findings(folder)
    nodules = nodule_features(labels, rows, lungs)
    series = read_record(folder / RECORD)["input"]["series"] or {}
    return ScanFeatures(
        name,
        series.get("patient_id") or "",
        series.get("series_instance_uid") or "",
        source,
        scan_features(labels, nodules.values()),
        nodules,
    )


def results_folder(source: Path | IndexedScan, name: str, runs: Path) -> Path:
    """Return where the results of a scan go; another one at the same place has another folder.

    Arguments are those of `features_of`.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[-60:]
    if isinstance(source, IndexedScan):
        files = [source.folder / file for file in source.files]
    elif source.name.lower().endswith(VOLUME_SUFFIXES):
        files = volume_parts(source)
    else:
        folder = source if source.is_dir() else source.parent
        files = sorted(file for file in folder.rglob("*") if file.is_file())
    states = [(file, file.stat()) for file in files]
    key = [(str(file), state.st_size, state.st_mtime_ns) for file, state in states]
    return runs / f"{plain}-{hashlib.sha256(f'{key}'.encode()).hexdigest()[:8]}"


def _segmented(
    source: Path | IndexedScan, name: str, runs: Path, progress: ProgressCallback
) -> Path:
    """Segment a scan unless its results exist; a failed run leaves nothing behind."""
    from LungNoduleSegLib.segmenter import NoduleSegmenter  # noqa: PLC0415 - slow to import

    results = results_folder(source, name, runs)
    refuse_links(results)
    if is_run(results):
        return results
    with made_folder(runs), private_folder(runs, results.name) as working:
        NoduleSegmenter().run(source, working / "results", progress=progress)
        (working / "results").rename(results)
    return results


def _read_volume(file: Path) -> sitk.Image:
    if not file.is_file():
        raise InputError(f"{file} is missing: use the complete folder of a run.")
    if file.name.lower().endswith(".seg.nrrd"):
        raise InputError(
            f"{file} has segments other than nodules: use the folder of its run, or export the "
            "nodules as a label map."
        )
    return read_labels(file)


@dataclass(frozen=True)
class ExtractionOutcome:
    """The outcome of `write_feature_table`: scans added, kept and failed by name, and notes."""

    added: tuple[str, ...]
    kept: tuple[str, ...]
    errors: Mapping[str, str]
    notes: tuple[str, ...] = ()


def write_feature_table(
    folder: Path, table: Path, runs: Path | None = None, progress: ProgressCallback = silent
) -> ExtractionOutcome:
    """Write the features of every scan in a folder to a CSV file, one row per scan.

    Existing rows are kept and their scans skipped, so an interrupted call continues where it
    stopped. The table is replaced atomically after each scan; `NAME-nodules.csv` has the features
    of every nodule. Failures are listed in `NAME-errors.csv` and tried again the next time.

    Args:
        folder: see `find_scans`; or one scan.
        table: the CSV file, new or written by this function.
        runs: where CT scans are segmented; default `NAME-runs` beside the table.
        progress: callback, see `CTLungScreeningLib.progress`.

    Raises:
        InputError: if there are no scans, or an existing file is not such a table.
    """
    folder = folder.resolve()
    notes: list[str] = []
    scans = find_scans(folder, notes)
    nodule_table = table.parent / f"{table.stem}-nodules.csv"
    error_table = table.parent / f"{table.stem}-errors.csv"
    with only_writer(table, "writing"):
        rows = _rows_of(table, (*IDENTIFIERS, *SCAN_FEATURES))
        # A series counted by its folder alone before others in that were searched for.
        done = {f"{row['scan']}/{row['series_instance_uid']}" for row in rows}
        done |= {row["scan"] for row in rows}
        nodules = [
            row
            for row in _rows_of(nodule_table, ("scan", "nodule", *NODULE_FEATURES))
            if row["scan"] in done
        ]
        _rows_of(error_table, ("scan", "error"))
        if runs is None:
            runs = table.parent / f"{table.stem}-runs"
            refuse_links(runs)
        added: list[str] = []
        kept: list[str] = []
        errors: dict[str, str] = {}

        def save() -> None:
            _replace(nodule_table, ("scan", "nodule", *NODULE_FEATURES), nodules)
            _replace(table, (*IDENTIFIERS, *SCAN_FEATURES), rows)

        for number, (name, source) in enumerate(scans.items()):
            progress("Scans", number, len(scans))
            if name in done:
                kept.append(name)
                continue
            try:
                scan = features_of(source, name, runs)
            except (Cancelled, MemoryError):
                raise
            except Exception as error:  # a problem of one scan must not stop the others
                errors[name] = sentence_of(error)
                continue
            rows.append(scan.identifiers | _texts(scan.features))
            nodules += [
                {"scan": name, "nodule": str(n)} | _texts(features)
                for n, features in scan.nodules.items()
            ]
            added.append(name)
            with suppress(InputError):  # if opened elsewhere; the final save must succeed
                save()
        if added:
            save()
        progress("Scans", len(scans), len(scans))
        if errors or error_table.exists():
            lines = [{"scan": name, "error": text} for name, text in errors.items()]
            _replace(error_table, ("scan", "error"), lines)
        return ExtractionOutcome(tuple(added), tuple(kept), errors, tuple(notes))


def _texts(features: Features) -> dict[str, str]:
    """Format numbers with six digits, NaN as an empty cell."""
    return {name: "" if math.isnan(v) else f"{v:.6g}" for name, v in features.items()}


def _rows_of(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table that this module wrote; empty without a file."""
    if not path.exists():
        return []
    try:
        with csv_files.open_table(path) as (header, rows):
            if header != list(columns):
                raise InputError(
                    f"{path} is not a table of these features, or of another version: choose "
                    "another name for the output; nothing was overwritten."
                )
            return [
                {name: csv_files.unguarded(cell) for name, cell in row.items()} for _, row in rows
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): choose another output.") from error


def _replace(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Replace a table atomically."""
    cells = ([row[name] for name in columns] for row in rows)
    replace_text(path, csv_files.table_text(columns, cells))
