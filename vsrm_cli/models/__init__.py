"""The networks, the names they go by, and their weight files."""
