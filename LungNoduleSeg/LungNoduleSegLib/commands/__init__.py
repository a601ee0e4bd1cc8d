"""The commands of lung-nodule-seg except `run`, `phantom` and `demo`, by task."""
