"""DICOM measurement reports: each measure under its code, about the right segment and images."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom import sr
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes
from typer.testing import CliRunner

import dicom_files as files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from dicom_results import (
    RECORD,
    SHOWN_VOLUME,
    VOLUME,
    check_modules,
    dcmqi,
    groups,
    measures,
    results_on,
    validated,
    written,
)
from LungNoduleSegLib import cli
from LungNoduleSegLib.nodules.table import NoduleKind, Outline, read_nodules_csv, write_nodules_csv
from LungNoduleSegLib.results.dicom_report import (
    BY_READER,
    KINDS,
    SCHEME,
    SOLID_COMPONENT,
    private,
)
from LungNoduleSegLib.results.dicom_source import read_dicom_source
from LungNoduleSegLib.results.reading import (
    DICOM_KEY_IMAGES,
    DICOM_NAMES,
    DICOM_REPORT,
    DICOM_SEGMENTATION,
    LUNGS,
    NODULES,
    TABLE,
    result_names,
)
from LungNoduleSegLib.results.writing import write_dicom, write_dicom_of_run
from LungNoduleSegLib.risk.assessment import ScanRisk, assess_scan
from LungNoduleSegLib.risk.clinical_data import ClinicalData
from LungNoduleSegLib.risk.facts import PatientFacts, Sex, Status

NODULE_1 = {
    ("SCT", "103339001"): (7.25, "mm"),
    ("SCT", "103340004"): (5.5, "mm"),
    ("SCT", "81827009"): (6.4, "mm"),
    ("DCM", "112031"): (-20.0, "[hnsf'U]"),
    ("DCM", "111012"): (87.5, "%"),
}


@pytest.fixture
def scan(tmp_path: Path) -> CTScan:
    places = np.random.default_rng(2).permutation(files.positions())
    files.write_series(tmp_path / "ct", places=places)
    return read_ct(tmp_path / "ct")


def images_of(group: Any) -> list[str]:
    """SOP instances that the group names as the sources of its segment."""
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in group[0].ContentSequence
        if item.name == codes.DCM.SourceImageForSegmentation
    ]


def test_every_measure_is_read_back(scan: CTScan, tmp_path: Path) -> None:
    folder = written(tmp_path / "out", scan)
    lungs, labels, rows = results_on(scan)
    read = hd.seg.segread(folder / DICOM_SEGMENTATION)
    found = groups(folder / DICOM_REPORT)
    assert [group.tracking_identifier for group in found] == [
        "Right lung",
        "Left lung",
        "Nodule 1",
        "Nodule 3",
    ]
    voxel = np.prod(scan.image.GetSpacing())
    for number, (group, (image, label), side) in enumerate(
        zip(
            found,
            ((lungs, 1), (lungs, 2), (labels, 1), (labels, 3)),
            ("24028007", "7771000", "24028007", "7771000"),
            strict=True,
        ),
        1,
    ):
        segment = read.get_segment_description(number)
        assert group.tracking_uid == segment.tracking_uid
        assert group.finding_type == segment.segmented_property_type
        assert group.finding_category == segment.segmented_property_category
        (site,) = group.finding_sites
        assert site.value.value == "39607008"
        assert site.laterality.value == side
        (reference,) = (
            item for item in group[0].ContentSequence if item.name == codes.DCM.ReferencedSegment
        )
        assert reference.referenced_segment_numbers == [number]
        assert reference.referenced_sop_instance_uid == read.SOPInstanceUID
        array = sitk.GetArrayViewFromImage(image) == label
        shown = [scan.slices[k].sop_instance_uid for k in np.flatnonzero(array.any(axis=(1, 2)))]
        assert sorted(images_of(group)) == sorted(shown)
        value, unit = measures(group)[VOLUME]
        assert unit == "mm3"
        assert value == pytest.approx(array.sum() * voxel, abs=1e-3)
    one, three = found[2:]
    assert {key: value for key, value in measures(one).items() if key != VOLUME} == NODULE_1
    by_hand = {key: value for key, value in NODULE_1.items() if key != ("DCM", "111012")}
    assert {key: value for key, value in measures(three).items() if key != VOLUME} == by_hand
    assert len(measures(found[0])) == 1
    (mean,) = one.get_measurements(name=codes.DCM.AttenuationCoefficient)
    assert mean.derivation == codes.SCT.Mean
    for group, row in ((one, rows[0]), (three, rows[1])):
        (kind,) = group.get_qualitative_evaluations(name=codes.DCM.OpacityDescriptor)
        assert kind.value == KINDS[row.kind]
    names = [item.name for item in one[0].ContentSequence]
    assert codes.DCM.AlgorithmName in names
    assert codes.DCM.AlgorithmName not in [item.name for item in three[0].ContentSequence]


def test_what_a_report_says_of_patient_study_and_evidence(scan: CTScan, tmp_path: Path) -> None:
    folder = written(tmp_path / "out", scan)
    read, source = sr.srread(folder / DICOM_REPORT), pydicom.dcmread(scan.slices[0].file)
    segmentation = pydicom.dcmread(folder / DICOM_SEGMENTATION)
    check_modules(read)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert read[keyword].value == source[keyword].value, keyword
    assert read.CompletionFlag == "COMPLETE"
    assert read.VerificationFlag == "UNVERIFIED"
    assert read.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    (study,) = read.CurrentRequestedProcedureEvidenceSequence
    evidence = {
        item.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert segmentation.SOPInstanceUID in evidence
    assert {uid for group in groups(folder / DICOM_REPORT) for uid in images_of(group)} <= evidence


def test_codes_are_dicoms_own() -> None:
    dicom: Any = concepts
    for group, scheme, value in (
        (7469, "SCT", "103339001"),
        (7469, "SCT", "103340004"),
        (7469, "IBSI", "YEKZ"),
        (7469, "DCM", "112031"),
        (7464, "SCT", "373098007"),
        (6048, "DCM", "111012"),
    ):
        keywords: Any = cid_concepts[group][scheme]
        assert value in {code for keyword in keywords for code in dicom[scheme][keyword]}
    assert set(KINDS) == set(NoduleKind)
    assert {code.scheme_designator for code in KINDS.values()} <= {"DCM", "SCT", "RADLEX"}


def test_without_nodules_the_lungs_are_reported(scan: CTScan, tmp_path: Path) -> None:
    lungs, labels, _ = results_on(scan, ids=())
    write_dicom(tmp_path / "out", read_dicom_source(scan), lungs, labels, [], RECORD)
    found = groups(tmp_path / "out" / DICOM_REPORT)
    assert [group.tracking_identifier for group in found] == ["Right lung", "Left lung"]
    assert validated(tmp_path / "out" / DICOM_REPORT) == []


def test_an_enhanced_file_is_referred_to_by_its_frames(tmp_path: Path) -> None:
    places = np.random.default_rng(1).permutation(files.positions())
    (tmp_path / "ct").mkdir()
    files.write_enhanced(tmp_path / "ct" / "e.dcm", files.AXIAL, places)
    scan = read_ct(tmp_path / "ct")
    folder = written(tmp_path / "out", scan)
    _, labels, _ = results_on(scan)
    one = groups(folder / DICOM_REPORT)[2]
    frames = [
        int(item.ReferencedSOPSequence[0].ReferencedFrameNumber)
        for item in one[0].ContentSequence
        if item.name == codes.DCM.SourceImageForSegmentation
    ]
    held = np.flatnonzero((sitk.GetArrayViewFromImage(labels) == 1).any(axis=(1, 2)))
    assert sorted(frames) == sorted(int(scan.slices[k].frame or 0) + 1 for k in held)
    assert validated(folder / DICOM_REPORT) == []


def test_dcmqi_reads_the_same_measures(scan: CTScan, tmp_path: Path) -> None:
    folder = written(tmp_path / "out", scan)
    dcmqi(
        "tid1500reader",
        *("--inputDICOM", folder / DICOM_REPORT, "--outputMetadata", tmp_path / "report.json"),
    )
    read = json.loads((tmp_path / "report.json").read_text())
    one = read["Measurements"][2]
    assert one["TrackingIdentifier"] == "Nodule 1"
    assert one["ReferencedSegment"] == 3
    assert one["Laterality"]["CodeMeaning"] == "Right"
    found = {
        (item["quantity"]["CodingSchemeDesignator"], item["quantity"]["CodeValue"]): (
            float(item["value"]),
            item["units"]["CodeValue"],
        )
        for item in one["measurementItems"]
    }
    assert found == measures(groups(folder / DICOM_REPORT)[2])


def test_results_of_a_run_are_written_later(scan: CTScan, tmp_path: Path) -> None:
    lungs, labels, rows = results_on(scan)
    folder = tmp_path / "results"
    write_nodules_csv(folder / TABLE, rows)
    sitk.WriteImage(lungs, folder / LUNGS)
    sitk.WriteImage(labels, folder / NODULES)
    series = {"series_instance_uid": scan.series and scan.series.series_instance_uid}
    record = RECORD | {"input": {"source": str(scan.source), "series": series}}
    record["parameters"] = RECORD["parameters"] | {"clinical_data": {"age": 64, "sex": "female"}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    for one in scan.slices:
        image = pydicom.dcmread(one.file)
        image.AccessionNumber = "A" * 17
        image.save_as(one.file)
    done = CliRunner().invoke(cli.app, ["export-dicom", str(folder)])
    assert done.exit_code == 0, done.output
    assert "Note: The Accession Number of the series violates the DICOM standard" in done.output
    assert all(name in done.output for name in (*DICOM_NAMES, DICOM_KEY_IMAGES))
    assert measures(groups(folder / DICOM_REPORT)[2])[VOLUME][0] == rows[0].volume_mm3
    assert "PanCan" in str(pydicom.dcmread(folder / DICOM_REPORT)), "it lacks the clinical data"
    with pytest.raises(InputError, match=r"already holds key-images\.dcm, measurements"):
        write_dicom_of_run(folder)


@pytest.mark.slow
def test_a_real_scan_from_end_to_end(shared_data: Path, tmp_path: Path) -> None:
    from LungNoduleSegLib.segmenter import NoduleSegmenter

    output = tmp_path / "out"
    analysis = NoduleSegmenter().run(shared_data / "LIDC-IDRI-0001", output, dicom=True)
    assert sorted(file.name for file in output.iterdir()) == sorted(
        [*result_names(scene=False, dicom=True), DICOM_KEY_IMAGES]
    )
    read = hd.seg.segread(output / DICOM_SEGMENTATION)
    lungs, labels = sitk.ReadImage(output / LUNGS), sitk.ReadImage(output / NODULES)
    rows = read_nodules_csv(output / TABLE)
    assert rows
    expected = [(lungs, 1), (lungs, 2), *((labels, row.id) for row in rows)]
    found = groups(output / DICOM_REPORT)
    assert len(found) == len(expected) == len(read.segment_numbers)
    for number, (image, label) in enumerate(expected, 1):
        mask = sitk.GetArrayViewFromImage(image) == label
        volume = read.get_volume(segment_numbers=[number])
        start = image.TransformPhysicalPointToIndex(volume.position)[2]
        step = round(float(volume.affine[2, 0] / image.GetSpacing()[2]))
        planes = start + step * np.arange(volume.array.shape[0])
        np.testing.assert_array_equal(volume.array[..., 0] > 0, mask[planes])
        assert volume.array.sum() == mask.sum()
        outlined_by_image = image is labels and rows[number - 3].outline is Outline.IMAGE
        if not outlined_by_image:
            assert measures(found[number - 1])[VOLUME][0] == pytest.approx(
                mask.sum() * np.prod(image.GetSpacing()), abs=1e-3
            )
    for group, row in zip(found[2:], rows, strict=True):
        assert group.tracking_identifier == f"Nodule {row.id}"
        values = measures(group)
        by_image = row.outline is Outline.IMAGE
        told = values[SHOWN_VOLUME if by_image else VOLUME]
        assert told == (pytest.approx(row.volume_mm3, abs=1e-3), "mm3")
        assert (VOLUME in values) == (not by_image)
        assert values["SCT", "103339001"] == (row.diameter_mm, "mm")
        assert values["SCT", "103340004"] == (row.perpendicular_mm, "mm")
        assert values["DCM", "112031"] == (row.mean_hu, "[hnsf'U]")
        assert row.probability is not None
        assert values["DCM", "111012"][0] == pytest.approx(100 * row.probability)
    check_modules(pydicom.dcmread(output / DICOM_SEGMENTATION))

    sitk.WriteImage(analysis.scan.image, tmp_path / "scan.nrrd")
    with pytest.raises(InputError, match="is not a DICOM series"):
        NoduleSegmenter().run(tmp_path / "scan.nrrd", tmp_path / "no", dicom=True)
    assert not (tmp_path / "no").exists()
    assert validated(output / DICOM_SEGMENTATION) == validated(output / DICOM_REPORT) == []


CLINICAL = ClinicalData(
    PatientFacts(age=64, sex=Sex.FEMALE, family_history=False, emphysema=True, screening=True),
    {"status": Status.BASELINE},
    {
        1: {
            "upper_lobe": True,
            "spiculation": True,
            "status": Status.GROWING,
            "doubling_days": 210.0,
        },
        3: {"upper_lobe": False, "spiculation": False},
    },
)


def test_risk_growth_and_categories_are_in_the_report(scan: CTScan, tmp_path: Path) -> None:
    lungs, labels, rows = results_on(scan)
    risk = ScanRisk(CLINICAL.patient, assess_scan(rows, lungs, CLINICAL))
    out = tmp_path / "out"
    write_dicom(out, read_dicom_source(scan), lungs, labels, rows, RECORD, risk)
    read = sr.srread(out / DICOM_REPORT)
    check_modules(read)
    (scheme,) = read.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == SCHEME
    used = {
        item.value
        for item in read.iterall()
        if item.keyword == "CodingSchemeDesignator" and str(item.value).startswith("99")
    }
    assert used == {SCHEME}
    one, three = groups(out / DICOM_REPORT)[2:4]
    (site,) = one.finding_sites
    assert (site.value, site.laterality.value) == (codes.SCT.UpperLobeOfLung, "24028007")
    assert three.finding_sites[0].value.value == "39607008"
    assessed = risk.of(1)
    assert assessed is not None
    said = {
        found.method.meaning: found.value
        for found in one.get_measurements(name=codes.DCM.ProbabilityOfCancer)
    }
    expected = {
        result.model: round(100 * result.probability, 4)
        for result in assessed.models
        if result.probability is not None
    }
    assert {name[:64]: value for name, value in expected.items()} == said
    assert len(said) == 4
    parameters = [
        item.value
        for found in one.get_measurements(name=codes.DCM.ProbabilityOfCancer)
        for item in found[0].ContentSequence
        if item.name == codes.DCM.AlgorithmParameters
    ]
    assert "age in years = 64" in parameters
    assert "upper lobe location = True" in parameters
    (days,) = one.get_measurements(name=private("Volume doubling time"))
    assert (days.value, days.unit) == (210, codes.UCUM.Day)
    (shape,) = one.get_qualitative_evaluations(name=codes.DCM.BorderShape)
    assert shape.value == codes.DCM.Spiculated
    (rads,) = one.get_qualitative_evaluations(name=codes.DCM.AssessmentCategory)
    assert rads.value.meaning == f"Lung-RADS v2022: {assessed.guidelines[0].category}"
    (change,) = one.get_qualitative_evaluations(name=private("Change since the previous CT"))
    assert change.value == codes.SCT.IncreaseInSize
    whole = [
        group
        for group in read.content.get_image_measurement_groups()
        if group.tracking_identifier == "Examination"
    ]
    (category,) = whole[0].get_qualitative_evaluations(name=codes.DCM.AssessmentCategory)
    assert category.value.meaning == f"Lung-RADS v2022: {risk.examination.category}"


def by_code(group: Any) -> dict[str, Any]:
    """Measures of a region by the value of their code."""
    return {one.name.value: one for one in group.get_measurements()}


def uncertainties(one: Any) -> list[tuple[str, float, str]]:
    """Code, value and unit of the uncertainty of a measure."""
    return [
        (item.name.value, float(item.value), item.unit.value)
        for item in one[0].ContentSequence
        if item.name.meaning.endswith("measurement uncertainty")
    ]


def test_sizes_are_those_that_were_assessed_and_their_intervals_have_units(
    scan: CTScan, tmp_path: Path
) -> None:
    lungs, labels, (one, three) = results_on(scan)
    part_solid = replace(
        one,
        kind=NoduleKind.PART_SOLID,
        outline=Outline.IMAGE,
        solid_mm=3.5,
        solid_pm_mm=0.6,
        diameter_pm_mm=0.5,
        mean_diameter_pm_mm=0.4,
        volume_pm_mm3=21.0,
    )
    given = {"kind": NoduleKind.SOLID, "longest_mm": 16.0, "perpendicular_mm": 14.0}
    clinical = ClinicalData(nodules={3: given})
    rows = [
        part_solid,
        replace(part_solid, id=3, side=three.side, diameter_pm_mm=0.5, mean_diameter_pm_mm=0.4),
    ]
    risk = ScanRisk(clinical.patient, assess_scan(rows, lungs, clinical))
    write_dicom(tmp_path, read_dicom_source(scan), lungs, labels, rows, RECORD, risk)
    check_modules(pydicom.dcmread(tmp_path / DICOM_REPORT))
    measured, entered = map(by_code, groups(tmp_path / DICOM_REPORT)[2:])

    plus, minus = "371886008", "371885007"
    for code, half, unit in (
        ("103339001", 0.5, "mm"),
        ("81827009", 0.4, "mm"),
        (SOLID_COMPONENT.value, 0.6, "mm"),
        (SHOWN_VOLUME[1], 21.0, "mm3"),
    ):
        assert uncertainties(measured[code]) == [(plus, half, unit), (minus, half, unit)]
        assert measured[code].unit.value == unit
        assert measured[code].method is None
    assert measured[SOLID_COMPONENT.value].value == 3.5
    assert measured["81827009"].derivation == codes.SCT.Mean

    sizes = {"103339001": 16, "103340004": 14, "81827009": 15}
    for code, size in sizes.items():
        assert (entered[code].value, entered[code].method) == (size, BY_READER)
        assert not uncertainties(entered[code])
    assert {SHOWN_VOLUME[1], VOLUME[1]}.isdisjoint(entered), "of the outline that was wrong"
    assert SOLID_COMPONENT.value not in entered, "a solid nodule has none"
    _, corrected = groups(tmp_path / DICOM_REPORT)[2:]
    (kind,) = corrected.get_qualitative_evaluations(name=codes.DCM.OpacityDescriptor)
    assert kind.value == KINDS[NoduleKind.SOLID]


def test_report_with_risk_and_key_images_are_valid(scan: CTScan, tmp_path: Path) -> None:
    lungs, labels, rows = results_on(scan)
    risk = ScanRisk(CLINICAL.patient, assess_scan(rows, lungs, CLINICAL))
    out = tmp_path / "out"
    write_dicom(out, read_dicom_source(scan), lungs, labels, rows, RECORD, risk)
    for name in (DICOM_REPORT, DICOM_KEY_IMAGES):
        assert validated(out / name) == []


def test_dcmqi_reads_the_same_risk(scan: CTScan, tmp_path: Path) -> None:
    """Another library gives the same probabilities, doubling time and categories."""
    lungs, labels, rows = results_on(scan)
    risk = ScanRisk(CLINICAL.patient, assess_scan(rows, lungs, CLINICAL))
    out = tmp_path / "out"
    write_dicom(out, read_dicom_source(scan), lungs, labels, rows, RECORD, risk)
    dcmqi(
        "tid1500reader",
        *("--inputDICOM", out / DICOM_REPORT, "--outputMetadata", tmp_path / "report.json"),
    )
    one = json.loads((tmp_path / "report.json").read_text())["Measurements"][2]
    assessed = risk.of(1)
    assert assessed is not None
    read = [
        (item["quantity"]["CodeMeaning"], float(item["value"])) for item in one["measurementItems"]
    ]
    for result in assessed.models:
        if result.probability is not None:
            assert ("Probability of cancer", round(100 * result.probability, 4)) in read
    assert ("Volume doubling time", 210.0) in read
    said = {item["conceptValue"]["CodeMeaning"] for item in one["qualitativeEvaluations"]}
    assert f"Lung-RADS v2022: {assessed.guidelines[0].category}" in said
    assert {"Spiculated", "Increase in size"} <= said


def test_key_images_are_the_slices_of_the_nodules(scan: CTScan, tmp_path: Path) -> None:
    folder = written(tmp_path / "out", scan)
    _, _, rows = results_on(scan)
    key = pydicom.dcmread(folder / DICOM_KEY_IMAGES)
    assert key.Modality == "KO"
    named = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in key.ContentSequence
        if item.ValueType == "IMAGE"
    }
    assert named == {scan.slices[row.slice].sop_instance_uid for row in rows}


def test_the_segmentation_is_a_label_map_by_choice(scan: CTScan, tmp_path: Path) -> None:
    lungs, labels, rows = results_on(scan)
    source = read_dicom_source(scan)
    write_dicom(tmp_path / "out", source, lungs, labels, rows, RECORD, labelmap=True)
    read = hd.seg.segread(tmp_path / "out" / DICOM_SEGMENTATION)
    assert read.segmentation_type == hd.seg.SegmentationTypeValues.LABELMAP
    names = [read.get_segment_description(n).segment_label for n in read.segment_numbers]
    assert names == ["Right lung", "Left lung", "Nodule 1", "Nodule 3"]
    uids = [one.sop_instance_uid for one in scan.slices]
    pixels = read.get_pixels_by_source_instance(uids, combine_segments=True, relabel=False)
    planes = source.planes(labels)
    assert ((pixels == 3) == (planes == 1)).all()
    assert ((pixels == 4) == (planes == 3)).all()
    inside = source.planes(lungs)
    assert ((pixels == 1) == ((inside == 1) & (planes == 0))).all()
    for group in groups(tmp_path / "out" / DICOM_REPORT)[:4]:
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == read.SOPInstanceUID
