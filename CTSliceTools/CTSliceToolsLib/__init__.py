"""CT slice localization: numpy, SimpleITK, pydicom and Keras; neither slicer nor qt."""
