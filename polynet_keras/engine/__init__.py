"""The model whose `fit` works with any strategy, and its steps: compiled ones, and those of many replicas."""
