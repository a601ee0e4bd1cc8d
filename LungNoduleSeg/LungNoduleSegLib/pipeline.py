"""The whole way of one scan: read, find the lungs, run the network, measure, write."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.geometry.axial import AxialView
from CTLungScreeningLib.geometry.cropping import crop_to
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.provenance import software_versions
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.scan_index import IndexedScan
from LungNoduleSegLib.default_model import DEFAULT_MODEL
from LungNoduleSegLib.lungs.external_mask import read_lungs
from LungNoduleSegLib.lungs.segmentation import LungMethod, segment_lungs
from LungNoduleSegLib.network.detector import NoduleDetector, load_detector, read_cards
from LungNoduleSegLib.nodules.finding import NoduleFindings, NoduleRules, find_nodules
from LungNoduleSegLib.results.dicom_source import read_dicom_source
from LungNoduleSegLib.results.names import result_names
from LungNoduleSegLib.results.writing import write_results
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData

PACKAGES = ("SimpleITK", "keras", "numpy", "pydicom", "scikit-image", "scipy")


@dataclass(frozen=True)
class Analysis:
    """What was found in one scan.

    Attributes:
        scan: the scan as read.
        hu, lungs, probability: axial images on one grid, cropped to the lungs.
        findings: nodules on that grid.
        view: leads from the axial grid to the scan's own.
    """

    scan: CTScan
    hu: sitk.Image
    lungs: sitk.Image
    probability: sitk.Image
    findings: NoduleFindings
    view: AxialView


@dataclass
class Timing:
    """Seconds of each stage, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, progress: ProgressCallback) -> Iterator[None]:
        """Time one stage and report its begin and end."""
        progress(name, 0, 1)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)
        progress(name, 1, 1)


def run(
    source: Path | IndexedScan,
    output: Path,
    *,
    series: str | None = None,
    method: LungMethod = LungMethod.VOLUME,
    lungs_file: Path | None = None,
    model_file: Path = DEFAULT_MODEL,
    rules: Mapping[str, Any] = MappingProxyType({}),
    scene: bool = False,
    dicom: bool = False,
    probability: bool = False,
    given: ClinicalData = NO_CLINICAL_DATA,
    progress: ProgressCallback = silent,
) -> Analysis:
    """Segment the lungs and nodules of one scan and write all results into a folder.

    Args:
        source: DICOM folder, `.mhd`, `.nrrd`, `.nii.gz` …, see `read_ct`; or a scan that was found.
        output: folder for the results, made if missing; nothing in it is overwritten.
        series: SeriesInstanceUID, where the folder holds several.
        method: of the lung segmentation.
        lungs_file: the lungs as a label image, instead of finding them; see `read_lungs`.
        model_file: a `.keras` file with its card.
        rules: fields of `NoduleRules` that overrule those of the model's card.
        scene: also write `scene.mrb`; needs Slicer or slicer-core.
        dicom: also write `segmentation.dcm` and `measurements.dcm`; needs a DICOM series.
        probability: also write `probability.nrrd`, with which the threshold can be changed later.
        given: what was told of the patient, and of all nodules, for the report's risk section.
        progress: callback, see `CTLungScreeningLib.progress`.

    Raises:
        InputError: if the scan, the model or the output folder cannot be used.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: name a folder for the results.")
    refuse_existing(output, result_names(scene, dicom, probability))
    if given.nodules:
        raise InputError(
            f"Facts of nodule {min(given.nodules)} were given, but nodules have numbers only once "
            "they are found: give those of the patient and of all nodules here, and those of "
            "single ones to `risk`."
        )
    timing = Timing()
    with timing.stage("Model", progress):
        detector = _detector(model_file, *(card and card.sha256 for card in read_cards(model_file)))
    with timing.stage("Reading", progress):
        if isinstance(source, IndexedScan):
            scan = source.read(progress)
        else:
            scan = read_ct(source, series, progress)
        dicom_source = read_dicom_source(scan) if dicom else None
    chosen = NoduleRules(**{**detector.card.rules, **rules})
    analysis = analyse(scan, detector, method, chosen, timing, progress, lungs_file)
    record = _record(analysis, detector, model_file, method, chosen)
    if lungs_file is not None:
        record["parameters"]["lung_method"] = str(lungs_file)
    if given != NO_CLINICAL_DATA:
        record["parameters"]["facts"] = given.to_dict()
    write_results(
        output, analysis, record, timing, scene, progress, given, dicom_source, probability
    )
    return analysis


def analyse(
    scan: CTScan,
    detector: NoduleDetector,
    method: LungMethod,
    rules: NoduleRules,
    timing: Timing,
    progress: ProgressCallback = silent,
    lungs_file: Path | None = None,
) -> Analysis:
    """Find lungs and nodules of a scan in memory; see `run`.

    Raises:
        InputError: if the scan shows no lung, or `lungs_file` cannot be used.
    """
    view = AxialView.of(scan.image, AIR_HU)
    with timing.stage("Lungs", progress):
        if lungs_file is not None:
            lungs = read_lungs(lungs_file, view.image)
        else:
            try:
                lungs = segment_lungs(view.image, method, progress)
            except InputError as error:
                raise InputError(f"{scan.source}: {error}") from None
        lungs, hu = crop_to(lungs, view.image)
    with timing.stage("Nodules", progress):
        probability = detector.probability(hu, lungs, progress)
    with timing.stage("Measures", progress):
        findings = find_nodules(probability, hu, lungs, rules, scan.image)
    return Analysis(scan, hu, lungs, probability, findings, view)


@lru_cache(maxsize=1)
def _detector(model_file: Path, *sha256: str | None) -> NoduleDetector:
    """Load networks once for all the scans that a process runs with them."""
    return load_detector(model_file)


def _record(
    analysis: Analysis,
    detector: NoduleDetector,
    model_file: Path,
    method: LungMethod,
    rules: NoduleRules,
) -> dict[str, Any]:
    """What `run.json` says, but for the times."""
    scan = analysis.scan
    return {
        "software": software_versions(PACKAGES),
        "command": sys.argv,
        "model": {"file": model_file.name, **detector.record()},
        "parameters": {
            "lung_method": method,
            "preparation": detector.card.preparation,
            "rules": asdict(rules),
        },
        "input": {
            "source": str(scan.source),
            "series": asdict(scan.series) if scan.series else None,
            "sop_instance_uids": [s.sop_instance_uid for s in scan.slices],
            "size": scan.image.GetSize(),
            "spacing_mm": scan.image.GetSpacing(),
            "notes": scan.notes,
        },
    }
