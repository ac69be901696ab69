"""How else does a network become small? Sparse kernels, and what a network costs."""
