"""Facts about a media file: streams, timestamps, color, size, orientation and HDR metadata."""
