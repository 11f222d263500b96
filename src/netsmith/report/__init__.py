"""The report of a run: one HTML file that explains itself, made from what the run recorded and nothing else."""
