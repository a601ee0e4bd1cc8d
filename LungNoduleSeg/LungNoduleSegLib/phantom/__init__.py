"""A made-up chest CT and made-up lesions, with the exact truth about both."""
