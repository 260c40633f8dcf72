"""What comes from outside, checked before anybody uses it."""
