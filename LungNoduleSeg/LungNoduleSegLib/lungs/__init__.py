"""The lungs of a CT scan, in 3-D or slice by slice as in the tutorial."""
