// Weights as the micro-kernels read them.
#include <algorithm>

#include "convolution.h"
#include "micro.h"
#include "plan.h"

// Numbers that nan_pack writes.
NAN_API int64_t nan_pack_size(const Convolution* c) { return packed_size(*c); }

// Weights (outputs, inputs, taps), with strides between them, as the micro-kernels read them: for each group its blocks
// of outputs, then the bias, both padded to whole octets.
NAN_API int64_t nan_pack(const Convolution* c, const float* weight, const int64_t* strides, const float* bias, float* to) {
  const int64_t outputs = c->outputs / c->groups, inputs = c->inputs(), taps = c->taps();
  const int64_t size = packed_size(*c) / c->groups;
  for (int64_t g = 0; g < c->groups; ++g) {
    int64_t first = 0;
    float* block = to + g * size;
    for (int left = micro::octets(outputs); left > 0;) {
      const int64_t wide = micro::OCTET * micro::next(left);
#pragma omp parallel for num_threads(c->threads) schedule(static)
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t i = 0; i < inputs; ++i) {
          float* v = block + (t * inputs + i) * wide;
          const float* from = weight + (g * outputs + first) * strides[0] + i * strides[1] + t * strides[2];
          const int64_t full = std::min(wide, outputs - first);
          for (int64_t o = 0; o < full; ++o) v[o] = from[o * strides[0]];
          std::fill(v + full, v + wide, 0.0f);
        }
      block += taps * inputs * wide;
      first += wide;
      left -= int(wide / micro::OCTET);
    }
    std::fill(block, block + micro::OCTET * micro::octets(outputs), 0.0f);
    if (bias) std::copy(bias + g * outputs, bias + (g + 1) * outputs, block);
  }
  return 0;
}
