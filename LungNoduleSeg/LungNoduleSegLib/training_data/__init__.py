"""Examples to learn from: annotated scans, brought into a store on disk."""
