"""The logic of Lung Nodule Segmentation: runs, review, risk and growth as MRML nodes."""
