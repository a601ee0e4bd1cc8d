"""Where voxels lie and how to get from one grid to another."""
