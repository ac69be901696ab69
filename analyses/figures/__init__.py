"""One figure a file: draw(rows) -> Figure."""
