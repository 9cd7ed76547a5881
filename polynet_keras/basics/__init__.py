"""For all rooms: checks of arguments, files, names, optional packages, exit codes. No Keras, no TensorFlow."""
