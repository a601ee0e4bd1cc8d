"""Annotation, normalization, conversion and partition of series for training the localizer."""
