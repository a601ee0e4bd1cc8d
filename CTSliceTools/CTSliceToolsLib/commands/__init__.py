"""The commands of ct-slice-tools: those that make a dataset, and those of the localizer."""
