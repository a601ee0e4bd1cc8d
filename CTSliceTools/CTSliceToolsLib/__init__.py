"""CT slice localization: numpy, SimpleITK, pydicom and Keras; neither slicer nor qt."""

__version__ = "0.1.0"
