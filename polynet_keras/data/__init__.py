"""Images to batches: sources, the preprocessing protocol, augmentation, the tf.data pipeline."""
