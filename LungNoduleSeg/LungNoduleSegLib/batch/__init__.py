"""Many scans, one after the other or side by side: one row a scan in one table."""
