"""Lung nodule segmentation: numpy, SimpleITK and Keras; only `logic` needs slicer."""
