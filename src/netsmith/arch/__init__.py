"""Networks as values: stdlib only."""
