"""From probabilities to nodules: candidates, outlines, measurements, table."""
