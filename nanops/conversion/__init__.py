"""A model of torch becomes one that knows NaN: its layers and its functional calls are replaced, its parameters shared."""
