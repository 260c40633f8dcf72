"""The stage `sharp`: train a network for perceptual quality, not only for small errors."""
