"""The network: what it sees, its layers, its use and its training."""
