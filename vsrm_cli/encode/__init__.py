"""Frames become files and pipes."""
