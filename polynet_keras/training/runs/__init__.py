"""A training run: what is made of a recipe, fitted, shown and left in a folder."""
