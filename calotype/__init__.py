"""Calotype: from a folder of labelled images to predictions that anyone can trace back and print again."""

__version__ = "0.1.0"
