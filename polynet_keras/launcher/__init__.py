"""Starts the workers of one job on this machine, watches them and restarts them. No Keras, no TensorFlow."""
