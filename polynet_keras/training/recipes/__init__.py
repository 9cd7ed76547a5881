"""A training run as a value: what it starts with, its optimizer, its schedule, its regularization."""
