"""`python -m LungNoduleSegLib` is the command `lung-nodule-seg`."""

from LungNoduleSegLib.cli import main

main()
