"""Colours that the colour-blind can tell apart (Okabe and Ito, 2008)."""

BLUE, VERMILION = "#0072b2", "#d55e00"
COLOURS = (BLUE, VERMILION, "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
