"""Recipes and the runs they make; the optimizer, the callbacks, growth by insertion."""
