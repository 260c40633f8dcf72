"""Weight files: named, found, fetched, read, recognized."""
