"""Batch prediction: from waiting images to rows."""
