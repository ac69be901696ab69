"""A model of torch becomes one that knows NaN: its functions are replaced, its parameters shared."""
