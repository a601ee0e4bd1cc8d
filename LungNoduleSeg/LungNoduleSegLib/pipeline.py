"""Analyse one scan in memory: segment the lungs, run the networks, find and measure nodules."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import AxialView, crop_to, imaged_slices, onto_grid
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.volume_files import volume_stem
from CTSliceToolsLib.localizer.anchors import MIRRORED
from CTSliceToolsLib.localizer.orientation import contradictions
from LungNoduleSegLib.detectors.detection import Detection, Detector
from LungNoduleSegLib.lungs.labels import LungMethod, alike, cut_lungs, implausible, lung_volumes_ml
from LungNoduleSegLib.lungs.programs import PROGRAMS, find_lobes, lungs_of
from LungNoduleSegLib.lungs.segmentation import read_lungs, segment_lungs
from LungNoduleSegLib.nodules.finding import NoduleFindings, NoduleRules, find_nodules, with_lobes
from LungNoduleSegLib.nodules.measures import cut_off
from LungNoduleSegLib.nodules.table import Nodule

COARSEST_PIXEL_MM, COARSEST_SLICES_MM = 2.0, 5.5
"""Scans with larger voxels are noted; the bundled networks learnt from none."""


@dataclass(frozen=True)
class Analysis:
    """The results of one scan.

    Attributes:
        scan: the scan as read.
        hu: axial image, cropped to the lungs; `lungs` and `probability` are on the same grid.
        lungs: 1 right, 2 left.
        probability: that a voxel belongs to a nodule.
        findings: nodules on that grid.
        view: maps the axial grid to the scan's grid.
        notes: on repairs of the scan and on problems, one sentence each.
        lobes: n for `LOBES[n - 1]`, on the same grid; None if they are not known.
    """

    scan: CTScan
    hu: sitk.Image
    lungs: sitk.Image
    probability: sitk.Image
    findings: NoduleFindings
    view: AxialView
    notes: tuple[str, ...] = ()
    lobes: sitk.Image | None = None


@dataclass
class Timing:
    """Seconds of each stage, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, progress: ProgressCallback) -> Iterator[None]:
        """Time one stage and report its start and end."""
        progress(name, 0, 1)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)
        progress(name, 1, 1)


def too_coarse(spacing: tuple[float, ...]) -> tuple[str, ...]:
    """Note where voxels, mm along (x, y, z), are too large to tell a nodule from a vessel."""
    *pixel, slices = spacing
    if max(pixel) <= COARSEST_PIXEL_MM and slices <= COARSEST_SLICES_MM:
        return ()
    voxel = " × ".join(f"{mm:.2g}" for mm in spacing)
    return (
        f"Voxels of {voxel} mm do not show small nodules, and make vessels look like nodules: use "
        "the series with the thinnest slices.",
    )


def wrong_way_round(axial: sitk.Image, lungs: sitk.Image) -> tuple[str, ...]:
    """Note where the anatomy contradicts the scan's axes, so that sides or heights are wrong.

    Fluid in place of a lung looks like a liver on its side, so both lungs are needed to tell.
    """
    found = contradictions(axial)
    if MIRRORED in found and not alike(lung_volumes_ml(lungs)):
        found = tuple(note for note in found if note != MIRRORED)
    return found


def cut_nodules(labels: sitk.Image) -> tuple[str, ...]:
    """Note the nodules that reach the end of the scan, whose measures cannot be trusted.

    Args:
        labels: the nodules by number on the lungs' part of the scan.
    """
    return tuple(
        f"Nodule {number} reaches the end of the scan: it may be larger than measured."
        for number in cut_off(labels)
    )


def cavitated(nodules: Sequence[Nodule]) -> tuple[str, ...]:
    """Note the nodules with a cavity."""
    return tuple(
        f"Nodule {one.id} has a cavity, which is part of its size: if it is a cyst with a thick "
        "wall instead, state that for Lung-RADS."
        for one in nodules
        if one.cavity_mm3
    )


def analyse(
    scan: CTScan,
    detector: Detector,
    method: LungMethod,
    rules: NoduleRules,
    timing: Timing,
    progress: ProgressCallback = silent,
    lungs_file: Path | None = None,
    device: Device | None = None,
) -> Analysis:
    """Find the lungs and nodules of a scan.

    Args:
        scan: in HU, any orientation.
        detector: finds the nodules.
        method: of the lung segmentation.
        rules: which candidates are nodules.
        timing: gets the seconds of each stage.
        progress: callback, in the stages "Lungs", "Nodules" and "Measures".
        lungs_file: a label image of the lungs instead of segmenting them, see `read_lungs`.
        device: where the program of a `method` runs; None for a GPU if it finds one.

    Raises:
        InputError: if the scan has no lung, or `lungs_file` cannot be used.
    """
    view, lobes = AxialView.of(scan.image, AIR_HU), None
    axial = imaged_slices(view.image)
    with timing.stage("Lungs", progress):
        if lungs_file is not None:
            lungs = read_lungs(lungs_file, axial)
        elif method in PROGRAMS:
            lobes = find_lobes(axial, PROGRAMS[method], progress, device)
            lungs = lungs_of(lobes)
        else:
            try:
                lungs = segment_lungs(axial, method, progress)
            except InputError as error:
                raise InputError(f"{scan.source}: {error}") from None
        cut = cut_lungs(lungs)
        turned = wrong_way_round(axial, lungs)
        lungs, hu = crop_to(lungs, axial)
        lobes = None if lobes is None else onto_grid(lobes, lungs)
    with timing.stage("Nodules", progress):
        found = Detection.of(detector.detect(hu, lungs, progress), hu, lungs)
    with timing.stage("Measures", progress):
        findings = find_nodules(
            found.probability, hu, lungs, rules, scan.image, labels=found.labels
        )
        if lobes is not None:
            findings = with_lobes(findings, lobes)
    notes = (
        *scan.notes,
        *turned,
        *too_coarse(hu.GetSpacing()),
        *cut,
        *implausible(lungs, hu),
        *cut_nodules(findings.labels),
        *cavitated(findings.nodules),
        *detector.notes,
        *found.notes,
    )
    series = scan.series
    name = series.series_instance_uid if series else volume_stem(scan.source.name)
    if name in detector.card.training_cases:
        notes += (
            f"{detector.card.name} was trained on this scan: these findings do not show how well "
            "it performs on other scans.",
        )
    return Analysis(scan, hu, lungs, found.probability, findings, view, notes, lobes)
