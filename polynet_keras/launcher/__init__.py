"""Workers of one job on this machine: started, watched and started again. No Keras, no TensorFlow."""
