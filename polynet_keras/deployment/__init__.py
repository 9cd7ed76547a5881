"""From a trained net to a service: fuse, quantize, export, serve."""
