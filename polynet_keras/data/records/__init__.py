"""Folders of images as TFRecord files: writing, description, verification and access by index."""
