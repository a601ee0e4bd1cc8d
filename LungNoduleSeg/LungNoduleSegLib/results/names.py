"""Names of the files that a run writes into its output folder."""

LUNGS = "lungs.nii.gz"
NODULES = "nodules.nii.gz"
TABLE = "nodules.csv"
SEGMENTATION = "segmentation.seg.nrrd"
REPORT = "report.html"
RECORD = "run.json"
SCENE = "scene.mrb"


def result_names(scene: bool) -> list[str]:
    """Names of all files of a run, with or without the scene."""
    files = [LUNGS, NODULES, TABLE, SEGMENTATION, REPORT, RECORD]
    return [*files, SCENE] if scene else files
