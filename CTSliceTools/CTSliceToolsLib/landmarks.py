"""The twelve anatomical landmarks: name, keyboard key, normalized location.

The table is the tutorial's (Building a CT Slice Localizer With Keras, 2019). The normalized
location runs from 0 at the top of the head to 0.5 at the head of femur, about 1 at the feet.
Between two landmarks it is linear in z.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Landmark:
    """One landmark.

    Attributes:
        name: its name.
        key: the key that sets it.
        location: its normalized location.
        second_key: a letter that sets it, too, where some keyboards lack the key (the grave accent
            is dead on German ones, say); none of those that Slicer's slice views use.
    """

    name: str
    key: str
    location: float
    second_key: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that set it."""
        return tuple(filter(None, (self.key, self.second_key)))


LANDMARKS = (
    Landmark("Top of head", "`", 0.0, "A"),
    Landmark("Center of orbit", "1", 0.05),
    Landmark("C1", "2", 0.1),
    Landmark("C7", "3", 0.15),
    Landmark("T1", "4", 0.16),
    Landmark("Aortic arch", "5", 0.2),
    Landmark("Bifurcation of trachea", "6", 0.225),
    Landmark("Right dome of diaphragm", "7", 0.275),
    Landmark("T12", "8", 0.325),
    Landmark("L1", "9", 0.35),
    Landmark("Tip of iliac crest", "0", 0.425),
    Landmark("Head of femur", "-", 0.5, "E"),
)
"""From head to feet."""

LANDMARK_BY_NAME = {landmark.name: landmark for landmark in LANDMARKS}
LOCATIONS = np.array([landmark.location for landmark in LANDMARKS])
LOCATIONS.flags.writeable = False


def nearest_landmark(location: float) -> Landmark:
    """Return the landmark with the nearest normalized location."""
    return LANDMARKS[int(np.abs(LOCATIONS - location).argmin())]


def describe_location(location: float) -> str:
    """Describe a normalized location, such as "at T1" or "above Top of head"."""
    at = nearest_landmark(location)
    if abs(at.location - location) < 0.0005:
        return f"at {at.name}"
    below = int(np.searchsorted(LOCATIONS, location))
    if below == 0:
        return f"above {LANDMARKS[0].name}"
    if below == len(LANDMARKS):
        return f"below {LANDMARKS[-1].name}"
    return f"between {LANDMARKS[below - 1].name} and {LANDMARKS[below].name}"
