"""What the panels of both modules share; needs Slicer's `qt`, `ctk` and `slicer`."""
