"""The localizer of axial slices: networks, training, prediction, matching, evaluation."""
