"""The output of a run: masks, segments, table, report, DICOM objects."""
