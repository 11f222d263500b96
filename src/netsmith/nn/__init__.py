"""Layers and blocks that families share; they take plain values, never records."""
