"""How close upscaled clips come to the ground truth."""
