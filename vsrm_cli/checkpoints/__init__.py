"""Weight files: catalog, download, reading and detection."""
