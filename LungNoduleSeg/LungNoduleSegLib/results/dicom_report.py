"""Measurements of lungs and nodules, and their risk, as a DICOM Structured Report (TID 1500).

Standard DICOM concepts are used where they exist: assessment category, probability of cancer,
recommended follow-up interval, border shape (CID 6119), difference in size (CID 6134), lobe (CID
6126 and 6170). The names and categories of published models are private concepts, declared in the
Coding Scheme Identification Sequence.
"""

import re
from collections.abc import Sequence
from dataclasses import fields

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from LungNoduleSegLib.lungs.labels import Lobe
from LungNoduleSegLib.nodules.table import Nodule, NoduleKind, Outline, mean_axial_mm
from LungNoduleSegLib.results.dicom_segmentation import (
    MAKER,
    Algorithm,
    Algorithms,
    new_instance,
    sct,
    style_of,
)
from LungNoduleSegLib.results.dicom_source import DicomSource
from LungNoduleSegLib.results.segments import LUNG_STYLES, SegmentStyle
from LungNoduleSegLib.risk.assessment import Assessment, ScanRisk
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    Origin,
    PatientFacts,
    Status,
    measured_facts,
)
from LungNoduleSegLib.risk.guidelines import GuidelineResult
from LungNoduleSegLib.risk.published_models import ModelResult

SCHEME = "99CTLUNGSCREEN"
"""Coding scheme of private concepts; at most 16 characters."""

_CHANGES = {
    Status.STABLE: codes.SCT.NoSignificantChangesInTheFinding,
    Status.GROWING: codes.SCT.IncreaseInSize,
    Status.SLOWLY_GROWING: codes.SCT.IncreaseInSize,
}


def private(meaning: str) -> sr.CodedConcept:
    """Make a private concept, its value derived from its meaning."""
    value = re.sub(r"[^A-Za-z0-9]+", "_", meaning).strip("_")
    return sr.CodedConcept(value[:64], SCHEME, meaning[:64])


def declare_scheme(report: sr.ComprehensiveSR) -> None:
    """Declare the private coding scheme in a report."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "CTLungScreening: published nodule models and guidelines"
    item.CodingSchemeResponsibleOrganization = "CTLungScreening"
    report.CodingSchemeIdentificationSequence = [item]


_LOBES = {
    Lobe.RIGHT_UPPER: codes.SCT.UpperLobeOfLung,
    Lobe.RIGHT_MIDDLE: codes.SCT.MiddleLobeOfRightLung,
    Lobe.RIGHT_LOWER: codes.SCT.LowerLobeOfLung,
    Lobe.LEFT_UPPER: codes.SCT.UpperLobeOfLung,
    Lobe.LEFT_LOWER: codes.SCT.LowerLobeOfLung,
}
"""SNOMED CT codes of CID 6170; laterality is coded separately."""


def lobe_of(nodule: Nodule, one: Assessment | None) -> sr.CodedConcept | None:
    """Return the lobe of a nodule if known; clinical data take precedence."""
    upper = None if one is None else one.nodule.upper_lobe
    if nodule.lobe is not None and upper in (None, nodule.lobe.is_upper):
        return _LOBES[nodule.lobe]
    return codes.SCT.UpperLobeOfLung if upper else None


def risk_measurements(one: Assessment, patient: PatientFacts) -> list[sr.Measurement]:
    """Return the models' probabilities of cancer with their inputs, and the doubling time."""
    found = [
        sr.Measurement(
            codes.DCM.ProbabilityOfCancer,
            round(100 * result.probability, 4),
            codes.UCUM.Percent,
            method=private(result.model),
            algorithm_id=sr.AlgorithmIdentification(
                name=result.model[:64],
                version=result.source[:64],
                parameters=_inputs(result, one.nodule, patient),
            ),
        )
        for result in one.models
        if result.probability is not None
    ]
    days = one.nodule.doubling_days
    if days is not None:
        doubling = private("Volume doubling time")
        found.append(sr.Measurement(doubling, round(days, 1), codes.UCUM.Day))
    return found


def risk_evaluations(one: Assessment) -> list[sr.QualitativeEvaluation]:
    """Return border shape, change, and the categories of all guidelines."""
    found = []
    if one.nodule.spiculation:
        found.append(sr.QualitativeEvaluation(codes.DCM.BorderShape, codes.DCM.Spiculated))
    change = _CHANGES.get(one.nodule.status) if one.nodule.status else None
    if change is not None:
        found.append(sr.QualitativeEvaluation(private("Change since the previous CT"), change))
    for result in one.guidelines:
        if result.category:
            found.append(_category(result))
    return found


def examination_group(risk: ScanRisk) -> sr.MeasurementsAndQualitativeEvaluations | None:
    """Return the group with the examination's category, None without one."""
    result = risk.examination
    if not result.category:
        return None
    interval = []
    if result.months is not None:
        concept = codes.DCM.RecommendedFollowUpInterval
        interval = [sr.Measurement(concept, result.months[0], codes.UCUM.Month)]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(hd.UID(), "Examination"),
        finding_type=private("Examination as a whole"),
        measurements=interval,
        qualitative_evaluations=[_category(result)],
    )


def _category(result: GuidelineResult) -> sr.QualitativeEvaluation:
    """Code Lung-RADS as assessment category, other guidelines under their own names."""
    is_rads = result.guideline.startswith("Lung-RADS")
    name = codes.DCM.AssessmentCategory if is_rads else private(result.guideline)
    meaning = f"{result.guideline}: {result.category}"
    return sr.QualitativeEvaluation(name, private(meaning))


def _inputs(result: ModelResult, nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
    """List the inputs of a model as `label = value`."""
    known = {LABELS[f.name]: getattr(patient, f.name) for f in fields(patient)}
    known |= {
        label: getattr(nodule, name) for name, label in LABELS.items() if hasattr(nodule, name)
    }
    return [
        f"{term.label} = {known[term.label]}" if term.label in known else term.label
        for term in result.contributions
    ]


SERIES_NUMBER = 9002

CT_CHEST = sr.CodedConcept("24627-2", "LN", "CT Chest")

KIND = codes.DCM.OpacityDescriptor
"""Concept name of the codes in `KINDS`."""

KINDS = {
    NoduleKind.SOLID: sr.CodedConcept("RID50151", "RADLEX", "solid pulmonary nodule"),
    NoduleKind.PART_SOLID: sr.CodedConcept("RID50152", "RADLEX", "part-solid pulmonary nodule"),
    NoduleKind.NON_SOLID: sr.CodedConcept("RID50153", "RADLEX", "non-solid pulmonary nodule"),
    NoduleKind.CALCIFIED: codes.SCT.PathologicCalcification,
}
"""RadLex codes where DICOM has none, as in the DICOM version of LIDC.

Fedorov et al., Med Phys 2020;47:5953, "DICOM re-encoding of volumetrically annotated Lung Imaging
Database Consortium (LIDC) nodules".
"""


SOLID_COMPONENT = private("Mean diameter of the solid component")
"""DICOM has no concept for it."""

BY_READER = private("Entered by a reader")
"""Method of a size that overrides the measured one."""


def make_report(
    source: DicomSource,
    segmentation: hd.seg.Segmentation,
    lungs: sitk.Image,
    nodules: Sequence[Nodule],
    algorithms: Algorithms,
    risk: ScanRisk | None = None,
) -> sr.ComprehensiveSR:
    """Make a measurement report with a group for each lung and nodule, referring to its segment.

    Args:
        source: the series.
        segmentation: made from the same lungs and nodules by `make_segmentation`.
        lungs: `RIGHT_LUNG`, `LEFT_LUNG`, 0 elsewhere, on the grid of the scan.
        nodules: those to report.
        algorithms: that found them.
        risk: results of models and guidelines; None to leave them out.
    """
    segments = {
        description.tracking_id: description
        for description in map(segmentation.get_segment_description, segmentation.segment_numbers)
    }
    groups: list[sr.MeasurementsAndQualitativeEvaluations] = [
        _group(style, segments[style.name], segmentation, algorithms.lungs, [_volume(volume)])
        for style, volume in _lung_volumes(lungs)
    ]
    shown: set[str] = set()
    for nodule in nodules:
        style = style_of(nodule)
        assessed = risk.of(nodule.id) if risk else None
        facts = assessed.nodule if assessed else measured_facts([nodule])[0]
        measurements = _measurements(nodule, facts)
        evaluations = [sr.QualitativeEvaluation(KIND, KINDS[facts.kind or nodule.kind])]
        if assessed is not None and risk is not None:
            measurements += risk_measurements(assessed, risk.patient)
            evaluations += risk_evaluations(assessed)
        group = _group(
            style,
            segments[style.name],
            segmentation,
            None if nodule.probability is None else algorithms.nodules,
            measurements,
            evaluations,
            lobe_of(nodule, assessed),
        )
        groups.append(group)
        shown.update(
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in group[0].ContentSequence
            if item.name == codes.DCM.SourceImageForSegmentation
        )
    whole = examination_group(risk) if risk else None
    groups += [whole] * (whole is not None)
    listed = [  # highdicom lists single-frame images only
        image for image in source.images if image.SOPInstanceUID in shown and not source.numbers
    ]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer()),
        procedure_reported=CT_CHEST,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=listed or None,
    )
    report = sr.ComprehensiveSR(
        evidence=[*source.images, segmentation],
        content=content[0],
        series_number=SERIES_NUMBER,
        series_description="Lungs and lung nodules: measures",
        **new_instance(algorithms),
        is_complete=True,
    )
    declare_scheme(report)
    return report


def _group(
    style: SegmentStyle,
    segment: hd.seg.SegmentDescription,
    segmentation: hd.seg.Segmentation,
    algorithm: Algorithm | None,
    measurements: Sequence[sr.Measurement],
    evaluations: Sequence[sr.QualitativeEvaluation] = (),
    lobe: sr.CodedConcept | None = None,
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Make the group of one segment, with its name, UID and source images."""
    terms = style.terminology
    side = terms.region_modifier or terms.modifier
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(segment.tracking_uid, segment.tracking_id),
        referenced_segment=_reference(segmentation, segment.segment_number),
        finding_category=sct(terms.category),
        finding_type=sct(terms.type),
        finding_sites=[sr.FindingSite(lobe or sct(terms.region or terms.type), side and sct(side))],
        algorithm_id=algorithm
        and sr.AlgorithmIdentification(
            name=algorithm.name,
            version=algorithm.version,
            parameters=[f"{name}={value}" for name, value in algorithm.parameters.items()],
        ),
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _reference(segmentation: hd.seg.Segmentation, number: int) -> sr.ReferencedSegment:
    """Refer to a segment, with its source images; for a label map, with their series."""
    if segmentation.segmentation_type != hd.seg.SegmentationTypeValues.LABELMAP:
        return sr.ReferencedSegment.from_segmentation(segmentation, number)
    (series,) = segmentation.ReferencedSeriesSequence
    return sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=number,
        source_series=sr.SourceSeriesForSegmentation(series.SeriesInstanceUID),
    )


def _lung_volumes(lungs: sitk.Image) -> list[tuple[SegmentStyle, float]]:
    """Style and volume in mm³ of each lung that is present."""
    counts = np.bincount(sitk.GetArrayViewFromImage(lungs).ravel(), minlength=3)
    voxel = float(np.prod(lungs.GetSpacing()))
    return [
        (style, float(counts[label]) * voxel)
        for label, style in LUNG_STYLES.items()
        if counts[label]
    ]


def _volume(mm3: float) -> sr.Measurement:
    return sr.Measurement(
        codes.IBSI.VolumeFromVoxelSummation, round(mm3, 3), codes.UCUM.CubicMillimeter
    )


def _plus_minus(half: float, unit: Code) -> sr.MeasurementProperties:
    """Code half the 95 % interval as upper and lower uncertainty (TID 310), in the same unit.

    `MeasurementProperties` would give them no unit; TID 310 leaves it open.
    """
    properties = sr.MeasurementProperties()
    for name in (
        codes.SCT.RangeOfUpperMeasurementUncertainty,
        codes.SCT.RangeOfLowerMeasurementUncertainty,
    ):
        relation = sr.RelationshipTypeValues.HAS_PROPERTIES
        properties.append(sr.NumContentItem(name, half, unit, relationship_type=relation))
    return properties


def _measurements(nodule: Nodule, facts: NoduleFacts) -> list[sr.Measurement]:
    """Return sizes as assessed, attenuation, and the output of the network."""
    summed = facts.origins.get("volume_mm3") is Origin.MEASURED and (
        nodule.outline is not Outline.IMAGE
    )
    volume = codes.IBSI.VolumeFromVoxelSummation if summed else codes.SCT.Volume
    sizes = [
        _size(codes.SCT.LongAxis, facts, "longest_mm", nodule.diameter_pm_mm),
        _size(codes.SCT.ShortAxis, facts, "perpendicular_mm", nodule.perpendicular_pm_mm),
        _mean_diameter(nodule, facts),
        _size(SOLID_COMPONENT, facts, "solid_component_mm", nodule.solid_pm_mm),
        _size(volume, facts, "volume_mm3", nodule.volume_pm_mm3, codes.UCUM.CubicMillimeter),
    ]
    measurements = [
        *(size for size in sizes if size is not None),
        sr.Measurement(
            codes.DCM.AttenuationCoefficient,
            nodule.mean_hu,
            codes.UCUM.HounsfieldUnit,
            derivation=codes.SCT.Mean,
        ),
    ]
    if nodule.probability is not None:
        percent = round(100 * nodule.probability, 6)
        measurements.append(
            sr.Measurement(codes.DCM.CertaintyOfFinding, percent, codes.UCUM.Percent)
        )
    return measurements


def _size(
    concept: Code | sr.CodedConcept,
    facts: NoduleFacts,
    name: str,
    half: float | None,
    unit: Code = codes.UCUM.Millimeter,
) -> sr.Measurement | None:
    """Code a size with half its 95 % interval, or as entered by a reader; None if unknown."""
    value = getattr(facts, name)
    if value is None:
        return None
    if facts.origins[name] is Origin.GIVEN:
        return sr.Measurement(concept, round(value, 3), unit, method=BY_READER)
    properties = None if half is None else _plus_minus(half, unit)
    return sr.Measurement(concept, round(value, 3), unit, properties=properties)


def _mean_diameter(nodule: Nodule, facts: NoduleFacts) -> sr.Measurement | None:
    """Code the mean of the two diameters, which Lung-RADS and Fleischner use."""
    if facts.longest_mm is None or facts.perpendicular_mm is None:
        return None
    unit, half = codes.UCUM.Millimeter, nodule.mean_diameter_pm_mm
    given = Origin.GIVEN in (facts.origins["longest_mm"], facts.origins["perpendicular_mm"])
    return sr.Measurement(
        codes.SCT.Diameter,
        mean_axial_mm(facts.longest_mm, facts.perpendicular_mm),
        unit,
        derivation=codes.SCT.Mean,
        method=BY_READER if given else None,
        properties=None if given or half is None else _plus_minus(half, unit),
    )


def make_key_images(
    source: DicomSource, nodules: Sequence[Nodule], algorithms: Algorithms
) -> hd.ko.KeyObjectSelectionDocument:
    """Select the slice of each nodule's centre as images of interest.

    Args:
        source: the series; a multi-frame file is selected as a whole.
        nodules: with the index `slice` on the grid of the scan.
        algorithms: that found them.
    """
    slices = {0} if source.numbers else {nodule.slice for nodule in nodules}
    images = [source.images[k] for k in sorted(slices)]
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=images,
        observer_device_context=_observer(),
        description="Slices through the centres of the lung nodules that were found",
    )
    return hd.ko.KeyObjectSelectionDocument(
        evidence=images,
        content=content,
        series_number=SERIES_NUMBER + 1,
        series_description="Lung nodules: key images",
        **{name: value for name, value in new_instance(algorithms).items() if name in _KEY_IMAGES},
    )


_KEY_IMAGES = ("series_instance_uid", "sop_instance_uid", "instance_number", "manufacturer")
"""Arguments of `new_instance` that apply, without those of the Enhanced Equipment module."""


def _observer() -> sr.ObserverContext:
    """Identify this program as the observer."""
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(entropy_srcs=[MAKER]),
            name=MAKER,
            manufacturer_name=MAKER,
            model_name=MAKER,
        ),
    )
