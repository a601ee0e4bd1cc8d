"""Shared by both panels: sections, run bar, training steps, slice views, package installer."""
