"""Names of the files that a run writes into its output folder."""

LUNGS = "lungs.nii.gz"
NODULES = "nodules.nii.gz"
TABLE = "nodules.csv"
SEGMENTATION = "segmentation.seg.nrrd"
REPORT = "report.html"
RECORD = "run.json"
SCENE = "scene.mrb"
