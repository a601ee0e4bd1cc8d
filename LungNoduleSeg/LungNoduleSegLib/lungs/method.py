"""The methods of lung segmentation."""

from enum import StrEnum


class LungMethod(StrEnum):
    """How the lungs are found."""

    VOLUME = "volume"
    """In 3-D, the default: see `volume`."""
    TUTORIAL = "tutorial"
    """Slice by slice as in the Data Science Bowl tutorial: see `tutorial`."""
