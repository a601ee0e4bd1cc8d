"""Slicer's scene: the only modules here that import slicer."""
