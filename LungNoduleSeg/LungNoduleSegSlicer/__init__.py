"""Lung Nodule Segmentation inside Slicer: logic and panel."""
