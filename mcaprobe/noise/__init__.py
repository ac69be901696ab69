"""How the roundings inside an operator add up: one file per operator family."""
