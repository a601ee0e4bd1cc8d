"""The sections of the panel CTSliceTools; needs Slicer's `qt`, `ctk` and `slicer`."""
