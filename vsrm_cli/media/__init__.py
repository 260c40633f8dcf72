"""Video files: reading, writing, and what colors and times mean in them."""
