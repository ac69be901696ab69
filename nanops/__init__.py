"""What is noise becomes NaN, and the work is skipped: pooling, unpooling and convolution that know NaN."""
