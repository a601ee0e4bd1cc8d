"""Segment, measure, assess and follow lung nodules in chest CT; needs no Slicer.

The names in `__all__` are for scripts and stay; everything else may change.
"""

from CTLungScreeningLib import lazy_names

_HOMES = {
    "ClinicalData": "risk.clinical_data",
    "LungMethod": "lungs.labels",
    "Nodule": "nodules.table",
    "NoduleRules": "nodules.finding",
    "NoduleSegmenter": "segmenter",
    "PatientFacts": "risk.facts",
    "PhantomSpec": "phantom.chest",
    "SegmentedScan": "segmenter",
    "assess_nodules": "risk.assessment:assess_scan",
    "compare_masks": "evaluation.dice",
    "compare_runs": "results.growth_results",
    "evaluate_synthetic_lesions": "evaluation.synthetic_lesions",
    "make_phantom": "phantom.chest",
    "measure_nodules": "segmenter",
    "predict_risk": "risk.prediction",
    "prepare_lidc": "training_data.lidc_idri",
    "prepare_luna": "training_data.luna16",
    "read_clinical_data": "risk.clinical_data:read_facts",
    "read_ct": "CTLungScreeningLib.reading.ct_reading",
    "read_run": "results.reading",
    "run_batch": "batch.running",
    "score_detection": "evaluation.detection",
    "segment_lungs": "lungs.segmentation",
    "train_on_store": "training_data.training",
    "train_risk": "risk.training",
    "write_feature_table": "feature_extraction",
    "write_phantom": "phantom.chest",
}

__all__ = [*_HOMES]  # noqa: PLE0604 - they are strings
__getattr__ = lazy_names(__name__, _HOMES)
