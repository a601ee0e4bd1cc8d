"""Reading CT: DICOM series and volume files, checked, in HU."""
