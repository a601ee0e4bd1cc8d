"""Locate CT slices in the body: annotate, train, predict, match; needs no Slicer.

The names in `__all__` are for scripts and stay; everything else may change.
"""

from CTLungScreeningLib import lazy_names

_HOMES = {
    "LANDMARKS": "landmarks",
    "ScanPrediction": "localizer.prediction",
    "SliceLocalizer": "localizer.prediction",
    "align_scans": "localizer.matching",
    "annotate_series": "dataset.annotation",
    "convert": "dataset.conversion",
    "evaluate": "localizer.evaluation",
    "find_level": "localizer.matching",
    "find_same_level": "localizer.matching",
    "match_files": "localizer.matching",
    "normalize": "dataset.normalization",
    "organize": "organizing.organizer",
    "partition": "dataset.conversion",
    "predict_location": "localizer.prediction",
    "read_ct": "CTLungScreeningLib.reading.ct_reading",
    "slice_image": "slice_image",
    "train_localizer": "localizer.training:train",
    "write_prediction": "localizer.results",
}

__all__ = [*_HOMES]  # noqa: PLE0604 - they are strings
__getattr__ = lazy_names(__name__, _HOMES)
