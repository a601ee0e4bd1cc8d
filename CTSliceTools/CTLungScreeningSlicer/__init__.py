"""Shared by both modules inside Slicer: scene helpers and parts of panels."""
