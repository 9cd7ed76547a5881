"""Experiments of several runs, and how fast a pipeline is."""
