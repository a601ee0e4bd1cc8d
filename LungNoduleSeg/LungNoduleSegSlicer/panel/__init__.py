"""The sections of the panel LungNoduleSeg; needs Slicer's `qt` and `slicer`."""
