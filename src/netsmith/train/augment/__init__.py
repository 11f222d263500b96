"""What happens to training pictures: drawn first, then carried out, on whole batches of uint8."""
