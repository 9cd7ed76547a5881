"""The recipe, the run and its folder."""
