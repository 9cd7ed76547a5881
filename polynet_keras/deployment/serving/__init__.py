"""An exported model as a service over HTTP: images in, classes out."""
