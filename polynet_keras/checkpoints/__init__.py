"""A training that is saved between two steps, and goes on from there as if nothing had happened."""
