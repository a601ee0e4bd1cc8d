"""Annotated series as a dataset to train the localizer on."""
