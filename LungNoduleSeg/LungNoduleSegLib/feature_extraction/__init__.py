"""Features of many scans, whatever form each comes in, as one table."""
