"""The stage `sharp`: a network learns frames that look right, not only those that are near."""
