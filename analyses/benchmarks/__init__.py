"""What does it cost? Ratios to stock PyTorch, timed side by side in the same run."""
