"""What every room uses: checks of arguments, files, names, optional packages, exit codes. No Keras, no TensorFlow."""
