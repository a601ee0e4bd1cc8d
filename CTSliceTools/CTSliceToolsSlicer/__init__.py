"""CT Slice Tools inside Slicer: logic and panel."""
