// Sums of products in a stated order: what they take.
#pragma once
#include "abi.h"

// A convolution of any kind, or a matrix product, of one sample. Its rows are output channels, its columns output
// positions. The sum of (row, column) is accumulated in the order of the list of products: product k takes the input of
// channel `channel[k]` at position output * step + offset[tap[k]], 0 outside of the input.
struct Products {
  const float* input;
  const float* weight;     // (groups, rows / 16 rounded up, products, 16), 0 beyond the rows
  const float* bias;       // (groups * rows), or null
  float* output;
  const int32_t* channel;  // (products), within the group
  const int32_t* tap;      // (products)
  const int32_t* offset;   // (taps, 3)
  int64_t groups, rows, channels, products, taps;
  int64_t segment;         // products that are summed from zero and then added to the total; `products` for one chain
  int64_t bias_first;      // whether the chain starts from the bias, or the bias is added at the end
  int64_t images, size[3], outputs[3], step[3];
  int64_t input_stride[5];   // image, channel, three dimensions
  int64_t output_stride[5];  // image, row, three dimensions
  int64_t mode;
  uint32_t key[2], site, threads;
};
