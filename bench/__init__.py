"""Benchmarks: each prints its figures and keeps none in the tests."""
