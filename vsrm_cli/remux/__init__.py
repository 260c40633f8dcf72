"""Everything in a file except the frames: copied from input to output."""
