"""Evaluation of findings and masks against a reference."""
