"""Cancer risk: published models and guidelines, features, trained classifiers and growth."""
