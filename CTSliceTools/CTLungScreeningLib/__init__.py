"""Shared by both modules: reading CT, geometry, files, progress, model cards; needs no Slicer."""

__version__ = "0.1.0"
