"""netsmith: from a folder of labelled images and a deployment budget to the most accurate image classifier that fits."""

__version__ = "0.1.0"
