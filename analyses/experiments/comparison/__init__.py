"""The ways to make a network small, side by side: same task, data and training budget."""
