"""How good findings and masks are, held against the truth."""
