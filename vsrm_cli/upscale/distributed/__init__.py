"""Segments of one job on several devices, or on the machines of a cluster."""
