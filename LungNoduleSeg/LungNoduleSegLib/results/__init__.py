"""What a run leaves behind: masks, segments, table, report."""
