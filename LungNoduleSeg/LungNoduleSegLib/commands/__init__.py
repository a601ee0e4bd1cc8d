"""The commands of `lung-nodule-seg`, one module each."""
