"""How the nano is made: its world, its data, its stages. Not needed to use it."""
