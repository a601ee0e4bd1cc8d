"""Sort DICOM files into folders by patient, study and series."""
