"""Training: the loop, its losses, validation, and the files of a run."""
