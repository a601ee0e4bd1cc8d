"""What both modules share inside Slicer: scene helpers and parts of panels."""
