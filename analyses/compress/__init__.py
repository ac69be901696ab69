"""How else does a network become small? Fewer channels, sparse or fused kernels; and what a network costs."""
