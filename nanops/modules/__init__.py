"""The operators as modules: the functions' names, with parameters and `from_torch()`."""
