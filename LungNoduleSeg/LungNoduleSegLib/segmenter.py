"""The main entry point: segment lungs and nodules of a CT, in memory or into a folder."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib import software_versions
from CTLungScreeningLib.engine import PACKAGES as ENGINES
from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.geometry import AxialView, imaged_slices, onto_grid
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.model_card import settings_of
from CTLungScreeningLib.options import settle_choices
from CTLungScreeningLib.progress import ProgressCallback, in_terminal
from CTLungScreeningLib.reading.ct_reading import IN_MEMORY, IndexedScan, as_scan
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES, volume_sha256
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.detectors.models import open_detector
from LungNoduleSegLib.lungs.labels import LungMethod
from LungNoduleSegLib.lungs.programs import require_method
from LungNoduleSegLib.lungs.segmentation import (
    lungs_from,
    require_labels,
    segment_lungs,
)
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.nodules.measures import VOLUME_MEASUREMENT, measure_labels
from LungNoduleSegLib.nodules.table import COLUMNS, Nodule
from LungNoduleSegLib.options import DEFAULT_MODEL, OutputOptions, RunOptions
from LungNoduleSegLib.pipeline import Analysis, Timing, analyse
from LungNoduleSegLib.results.dicom_source import read_dicom_source
from LungNoduleSegLib.results.reading import CLINICAL_DATA, DICOM_KEY_IMAGES, SHA256, result_names
from LungNoduleSegLib.results.writing import SceneWriter, write_results
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData

PACKAGES = (
    "SimpleITK",
    "numpy",
    *ENGINES,
    "pydicom",
    "scikit-image",
    "scipy",
)


@dataclass(frozen=True)
class SegmentedScan:
    """The lungs and nodules of one scan.

    Attributes:
        analysis: the results on the axial grid of the analysis.
        record: software, model, parameters and input, as in `run.json`.
        timing: seconds of each stage.
    """

    analysis: Analysis
    record: dict[str, Any]
    timing: Timing

    @property
    def scan(self) -> CTScan:
        """The scan as read."""
        return self.analysis.scan

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on repairs of the scan and on problems, one sentence each."""
        return self.analysis.notes

    @property
    def nodules(self) -> tuple[Nodule, ...]:
        """The nodules by number, positions in LPS mm."""
        return self.analysis.findings.nodules

    @cached_property
    def labels(self) -> sitk.Image:
        """Label image of the nodules by number, uint16, on the input's grid."""
        return self.analysis.view.restore(self.analysis.findings.labels)

    @cached_property
    def lungs(self) -> sitk.Image:
        """The lungs, 1 right and 2 left, uint8, on the input's grid."""
        return self.analysis.view.restore(self.analysis.lungs)

    @cached_property
    def probability(self) -> sitk.Image:
        """The probability that a voxel belongs to a nodule, float32, on the input's grid."""
        return self.analysis.view.restore(self.analysis.probability)

    def table(self) -> list[dict[str, Any]]:
        """Return one record per nodule, for example for `pandas.DataFrame`; see `COLUMNS`."""
        return [dict(zip(COLUMNS, astuple(one), strict=True)) for one in self.nodules]

    def save(
        self,
        output: Path | str,
        *,
        clinical_data: ClinicalData = NO_CLINICAL_DATA,
        scene: SceneWriter | None = None,
        progress: ProgressCallback | None = None,
        **files: bool,
    ) -> None:
        """Write the masks, the segmentation, the table, the report and `run.json` into a folder.

        Args:
            output: folder for the results, written whole or not at all; nothing is overwritten.
            clinical_data: of the patient and of all nodules, for the report's risk section.
            scene: also write `scene.mrb`; see `LungNoduleSegSlicer.scene.saving_logic`.
            progress: callback; None shows bars in a terminal.
            **files: further files, as in `OutputOptions`: `dicom=True` also writes
                `segmentation.dcm` and `measurements.dcm`, `probability=True` writes
                `probability.nrrd`, and `masks=True` writes `masks.npz`.

        Raises:
            InputError: if one of the files exists, or `dicom` is set and the scan is not DICOM.
        """
        output, wanted = Path(output), OutputOptions(**files)
        _check_output(output, scene is not None, wanted)
        with in_terminal(progress) as report, whole_output(output) as folder:
            self._write(folder, report, wanted, clinical_data, scene)

    def _write(
        self,
        folder: Path,
        progress: ProgressCallback,
        files: OutputOptions,
        clinical_data: ClinicalData,
        scene: SceneWriter | None,
    ) -> None:
        """Write the files of `save` into a staging folder."""
        source = read_dicom_source(self.scan) if files.dicom else None
        record = self.record
        if clinical_data != NO_CLINICAL_DATA:
            parameters = record["parameters"] | {CLINICAL_DATA: clinical_data.to_dict()}
            record = record | {"parameters": parameters}
        write_results(
            folder,
            self.analysis,
            record,
            self.timing,
            progress,
            scene=scene,
            clinical_data=clinical_data,
            dicom=source,
            probability=files.probability,
            masks=files.masks,
        )


@dataclass(frozen=True)
class NoduleSegmenter:
    """Segments the lungs and lung nodules of chest CTs.

        found = NoduleSegmenter().apply("ct/")
        print(found.table())
        found.save("results")

    Attributes:
        model: one of the model's files, or its name, see `detectors.models.model_names`.
        lungs: method of the lung segmentation.
        lungs_file: a label image of the lungs instead, see `read_lungs`.
        rules: fields of `NoduleRules` that override the model's card.
        device: that runs the networks, also of a program for the lungs; None for a GPU if
            available.
    """

    model: Path = DEFAULT_MODEL
    lungs: LungMethod = LungMethod.VOLUME
    lungs_file: Path | None = None
    rules: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    device: Device | None = None

    def __post_init__(self) -> None:
        settle_choices(self)
        for name in ("model", "lungs_file"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        settings_of(NoduleRules, dict(self.rules), "`rules`")

    @classmethod
    def of(cls, options: RunOptions, lungs_file: Path | None = None) -> "NoduleSegmenter":
        """Make the segmenter that some options describe."""
        model = options.model or DEFAULT_MODEL
        return cls(model, options.lungs, lungs_file, options.rules, options.device)

    def apply(
        self,
        ct: Path | str | CTScan | IndexedScan | sitk.Image,
        *,
        series: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> SegmentedScan:
        """Segment the lungs and nodules of one scan.

        Args:
            ct: a DICOM folder or a volume file, see `read_ct`; a scan that was read or indexed; or
                a SimpleITK image in HU, LPS mm.
            series: the SeriesInstanceUID, if a folder has several.
            progress: `progress(stage, done, total)`, which may raise `Cancelled`; None shows bars
                in a terminal.

        Raises:
            InputError: if the scan, the lungs or the model cannot be used.
        """
        return self._apply(ct, series, progress, dicom=False)

    def run(
        self,
        ct: Path | str | CTScan | IndexedScan | sitk.Image,
        output: Path | str,
        *,
        series: str | None = None,
        clinical_data: ClinicalData = NO_CLINICAL_DATA,
        scene: SceneWriter | None = None,
        progress: ProgressCallback | None = None,
        **files: bool,
    ) -> SegmentedScan:
        """Segment one scan and write the results: `apply`, then `save`.

        Reasons for `save` to fail are checked before the work begins. Arguments and errors are
        those of the two.
        """
        output, wanted = Path(output), OutputOptions(**files)
        _check_output(output, scene is not None, wanted)
        if clinical_data.nodules:
            raise InputError(
                f"Clinical data name nodule {min(clinical_data.nodules)}, but nodules have no "
                "numbers before the run: use data of the patient and of all nodules here, and of "
                "single nodules with `risk`."
            )
        with in_terminal(progress) as report, whole_output(output) as folder:
            found = self._apply(ct, series, report, wanted.dicom)
            found._write(folder, report, wanted, clinical_data, scene)
        return found

    def _apply(
        self,
        ct: Path | str | CTScan | IndexedScan | sitk.Image,
        series: str | None,
        progress: ProgressCallback | None,
        dicom: bool,
    ) -> SegmentedScan:
        timing = Timing()
        with in_terminal(progress) as report:
            if self.lungs_file is None:
                require_method(self.lungs)
            with timing.stage("Model", report):
                detector = open_detector(self.model, self.device)
                rules = NoduleRules(**{**detector.card.rules, **self.rules})
            with timing.stage("Reading", report):
                scan = as_scan(ct, series, report)
                if dicom:
                    source = read_dicom_source(scan)
                    scan = replace(scan, notes=(*scan.notes, *source.notes))
            analysis = analyse(
                scan, detector, self.lungs, rules, timing, report, self.lungs_file, self.device
            )
        model = {"file": self.model.name, **detector.record()}
        parameters = {
            "lung_method": str(self.lungs_file) if self.lungs_file else self.lungs,
            "preparation": detector.card.preparation,
            "rules": asdict(rules),
            "volume_measurement": VOLUME_MEASUREMENT,
        }
        return SegmentedScan(analysis, _record(analysis, model, parameters), timing)


def measure_nodules(
    ct: Path | str | CTScan | IndexedScan | sitk.Image,
    labels: sitk.Image,
    lungs: sitk.Image | None = None,
) -> tuple[Nodule, ...]:
    """Measure nodules from another source in the same way as those of a run.

    Args:
        ct: the scan, as for `NoduleSegmenter.apply`.
        labels: label image with one label per nodule, 0 for background; on any grid, LPS mm.
        lungs: see `lungs_from`; None to segment them.

    Returns:
        One `Nodule` per label, with the label as its number.

    Raises:
        InputError: if the scan cannot be read or has no lung, `labels` or `lungs` are not labels,
            or a nodule has no voxel on the scan's grid.
    """
    scan = as_scan(ct)
    axial = imaged_slices(AxialView.of(scan.image, AIR_HU).image)
    if lungs is None:
        lungs = segment_lungs(axial)
    else:
        lungs = lungs_from(lungs, axial, "The label image of the lungs")
    return measure_labels(_on_grid(labels, axial), axial, lungs, scan.image)


_HIGHEST_LABEL = np.iinfo(np.uint16).max


def _on_grid(labels: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Bring labels of nodules onto a grid, all of them, as uint16."""
    source = "The label image of the nodules"
    values = require_labels(labels, _HIGHEST_LABEL, source, "nodules")
    wrong = values[(values != np.rint(values)) | (values > _HIGHEST_LABEL)]
    if len(wrong):
        raise InputError(
            f"{source} has the value {wrong[0]:g}: number the nodules from 1 to {_HIGHEST_LABEL}."
        )
    whole = sitk.Cast(labels, sitk.sitkUInt16)
    found = onto_grid(whole, grid)
    lost = np.setdiff1d(values, sitk.GetArrayViewFromImage(found))
    if len(lost):
        raise InputError(
            f"{source} has nodule {lost[0]:g} where the scan has no voxel: give labels that lie on "
            "the scan, in LPS mm."
        )
    return found


def _check_output(output: Path, scene: bool, files: OutputOptions) -> None:
    names = result_names(scene, **vars(files))
    refuse_existing(output, [*names, *[DICOM_KEY_IMAGES] * files.dicom])


def _record(
    analysis: Analysis, model: dict[str, Any], parameters: dict[str, Any]
) -> dict[str, Any]:
    """Return the content of `run.json` without results and times."""
    scan = analysis.scan
    is_volume = scan.source.name.lower().endswith(VOLUME_SUFFIXES) and scan.source.is_file()
    return {
        "software": software_versions(PACKAGES),
        "command": sys.argv,
        "model": model,
        "parameters": parameters,
        "input": {
            "source": str(scan.source if scan.source == IN_MEMORY else scan.source.resolve()),
            "series": asdict(scan.series) if scan.series else None,
            "sop_instance_uids": [s.sop_instance_uid for s in scan.slices],
            SHA256: volume_sha256(scan.source) if is_volume else None,
            "size": scan.image.GetSize(),
            "spacing_mm": scan.image.GetSpacing(),
            "notes": analysis.notes,
        },
    }
