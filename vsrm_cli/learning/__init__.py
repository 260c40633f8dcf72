"""How a network is taught: the recipe, the step, the guard against accidents, what is kept."""
