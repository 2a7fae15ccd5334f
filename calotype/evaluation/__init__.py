"""From answers to figures: pure functions of predictions and truth."""
