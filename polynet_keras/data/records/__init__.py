"""A folder of images as TFRecord files: written, described, verified and read by index."""
