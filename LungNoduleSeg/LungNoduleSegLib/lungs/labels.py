"""What the voxels of a lung mask say; sides are the patient's."""

RIGHT_LUNG = 1
LEFT_LUNG = 2
