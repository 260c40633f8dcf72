"""What networks learn from: footage found, read, degraded, and cut into samples."""
