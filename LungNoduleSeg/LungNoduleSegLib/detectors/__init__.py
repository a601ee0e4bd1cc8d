"""Nodule detectors: the bundled networks, and any model the user adds."""
