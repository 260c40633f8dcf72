"""A network and a stream of frames give a stream of larger frames."""
