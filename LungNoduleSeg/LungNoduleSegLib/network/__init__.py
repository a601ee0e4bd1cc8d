"""The networks: input preparation, layers, inference, training."""
