"""Block kinds: one module per kind, from the paper's record to the graph."""
