"""Run a network over a stream of frames, in windows and tiles."""
