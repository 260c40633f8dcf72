"""How near enlarged clips come to the truth: the parts of `vsrm bench --quality`."""
