"""Pruning: which channels, or single weights, of a trained network matter least."""
