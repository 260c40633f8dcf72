"""The architectures of the networks, and their configurations."""
