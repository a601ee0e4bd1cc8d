"""DICOM files sorted into folders by patient, study and series."""
