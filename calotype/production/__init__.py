"""Ground truth that comes late: labels of predicted images, and what they say about the model in production."""
