"""Where in the body an axial slice lies: network, prediction, matching, evaluation."""
