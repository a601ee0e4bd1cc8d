"""Batches: many scans in parallel, one table with a row per scan."""
