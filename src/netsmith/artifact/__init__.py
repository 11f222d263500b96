"""The model folder: written, opened, run, measured and verified, without torch."""
