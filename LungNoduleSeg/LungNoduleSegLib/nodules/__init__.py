"""From probabilities to nodules: found, measured, put into a table."""
