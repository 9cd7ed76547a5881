"""A training run, from the recipe through fitting and progress to the folder of its results."""
