"""Measurements as pages: HTML, SVG plots, labels in frames."""
