"""MRML nodes in and out; needs slicer and vtk."""
