"""Do the NaNs land where the digits are lost? Campaign and NaN model on the same slices, element by element."""
