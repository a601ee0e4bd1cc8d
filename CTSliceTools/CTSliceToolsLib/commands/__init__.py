"""The commands of ct-slice-tools, one module each."""
