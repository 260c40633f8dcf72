"""The commands of `vsrm`, and what draws on a terminal."""
