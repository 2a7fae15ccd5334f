"""From a source to a dataset with splits: what is an image, which belong together, who may learn from which."""
