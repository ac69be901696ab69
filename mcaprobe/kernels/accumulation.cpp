// The route model: how much do the roundings of one run of products add up to? One sweep of noise/accumulation.py.
#include <algorithm>

#include "abi.h"

// For each of `elements` sums: a run of `terms` products with sum `total` and sum of squares `squares` follows the partial
// sum `partial`; `summed` takes in the mean squares of the partial sums on the way.
MCA_API void mca_follow_run(int64_t elements, const float* total, const float* squares, const float* terms, float* partial,
                            float* summed) {
  for (int64_t i = 0; i < elements; ++i) {
    const float s = total[i], k = terms[i], p = partial[i], some = std::max(k, 1.0f);
    const float spread = std::max(squares[i] - s * s / some, 0.0f);
    const float drift = s * (2 * k + 1) / (6 * some);
    summed[i] += (k + 1) * (s * (drift + p) + spread / 6) + k * p * p;
    partial[i] = p + s;
  }
}
