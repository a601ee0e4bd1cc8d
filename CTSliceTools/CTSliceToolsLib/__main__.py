"""`python -m CTSliceToolsLib` is the command `ct-slice-tools`."""

from CTSliceToolsLib.cli import main

main()
