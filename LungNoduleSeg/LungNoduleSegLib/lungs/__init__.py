"""Lung segmentation, in 3-D or slice by slice as in the tutorial."""
