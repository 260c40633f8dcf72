"""Files and pipes become frames."""
