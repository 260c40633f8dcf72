"""What the training loop is made of: clips, losses, metrics."""
