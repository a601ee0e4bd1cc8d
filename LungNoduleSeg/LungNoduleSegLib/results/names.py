"""The file names of a run's results."""

LUNGS = "lungs.nii.gz"
NODULES = "nodules.nii.gz"
TABLE = "nodules.csv"
SEGMENTATION = "segmentation.seg.nrrd"
REPORT = "report.html"
RECORD = "run.json"
SCENE = "scene.mrb"
PROBABILITY = "probability.nrrd"
DICOM_SEGMENTATION = "segmentation.dcm"
DICOM_REPORT = "measurements.dcm"
DICOM_KEY_IMAGES = "key-images.dcm"

GROWTH_TABLE = "growth.csv"
TIMELINE_TABLE = "timeline.csv"
GROWTH_PAGE = "growth.html"
"""What a comparison of runs leaves behind."""

DICOM_NAMES = (DICOM_SEGMENTATION, DICOM_REPORT)
"""Always written; `DICOM_KEY_IMAGES` only where there is a nodule."""


def result_names(scene: bool, dicom: bool = False, probability: bool = False) -> list[str]:
    """Names of all files of a run: those that are always there, and those that are asked for."""
    files = [LUNGS, NODULES, TABLE, SEGMENTATION, REPORT, RECORD]
    return [*files, *[SCENE] * scene, *DICOM_NAMES * dicom, *[PROBABILITY] * probability]
