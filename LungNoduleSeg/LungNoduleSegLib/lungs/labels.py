"""The labels of a lung mask; sides are the patient's."""

import numpy as np
import SimpleITK as sitk

RIGHT_LUNG = 1
LEFT_LUNG = 2


def lung_volumes_ml(lungs: sitk.Image) -> dict[str, float]:
    """Volume of each lung of a mask in ml, by its side."""
    counts = np.bincount(sitk.GetArrayViewFromImage(lungs).ravel(), minlength=3)
    ml = float(np.prod(lungs.GetSpacing())) / 1000
    return {"right": float(counts[RIGHT_LUNG] * ml), "left": float(counts[LEFT_LUNG] * ml)}
