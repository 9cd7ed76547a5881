"""The outputs of a network's frozen part: computed once, stored in files, and used for training in place of images."""
