"""Pictures and their labels: sources, audit, splits, evaluation preprocessing and pixel caches (numpy and Pillow, no
torch)."""
