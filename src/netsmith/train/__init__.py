"""Training: from a network, uint8 pictures and a recipe to weights, in a given time, surviving interruption."""
