"""Training data: annotated scans in a store on disk."""
