"""A training run as a value: its start, its optimizer, its schedule, its regularization."""
