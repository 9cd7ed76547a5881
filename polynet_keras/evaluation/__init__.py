"""Using and judging trained models."""
