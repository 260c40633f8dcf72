"""How fast, how faithful, against what: the parts of `vsrm bench`."""
