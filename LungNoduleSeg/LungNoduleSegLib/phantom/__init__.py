"""A synthetic chest CT with lesions and its exact ground truth."""
