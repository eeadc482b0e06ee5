"""From files or a seed to batches: sources of examples, the pipeline, augmentation."""
