"""A heap of files sorted into folders of patients, studies and series."""
