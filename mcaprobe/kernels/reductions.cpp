// Sums and dot products with every addition rounded as the mode says, in the order of torch's own kernels.
//
// torch sums a contiguous dimension in 8 vector lanes x 4 accumulators, any other in one accumulator for each output; both
// in a cascade of four levels (aten/src/ATen/native/cpu/SumKernel.cpp). A dot product has the same 32 accumulators and
// no cascade; the exponentials of a softmax are summed in one vector, whose lanes are added pairwise, or one by one.
#include <algorithm>
#include <cstring>

#include "abi.h"
#include "rounder.h"

enum Order : int32_t { INNER, OUTER, DOT, VECTOR, SEQUENCE };

struct Reduction {
  const float* input;
  const float* factor;  // DOT: the other vector; else null
  float* output;        // (outer, inner)
  int64_t outer, count, inner;
  int64_t stride[3];         // of the input: outer, count, inner
  int64_t factor_stride[2];  // of the factor: outer, count
  int64_t order, mode;
  uint32_t key[2], site, threads;
};

namespace {

constexpr int LEVELS = 4, LANES = 16, VECTOR_LANES = 8, UNROLL = 4;

inline int ceil_log2(int64_t x) {
  int n = 0;
  while ((int64_t(1) << n) < x) ++n;
  return n;
}

// The cascade sum of N vectors side by side; `fetch(i, n)` gives term i of vector n.
template <int N, typename R, typename Fetch>
void cascade(R& rounder, int64_t terms, bool levels, Fetch fetch, F* total) {
  const int power = std::max(4, ceil_log2(std::max<int64_t>(terms, 1)) / LEVELS);
  const int64_t step = int64_t(1) << power, mask = step - 1;
  F sum[LEVELS][N];
  for (auto& level : sum)
    for (F& s : level) s = all(0.0f);
  int64_t i = 0;
  while (levels && i + step <= terms) {
    for (int64_t j = 0; j < step; ++j, ++i)
      for (int n = 0; n < N; ++n) sum[0][n] = rounder.add(sum[0][n], fetch(i, n));
    for (int j = 1; j < LEVELS; ++j) {
      for (int n = 0; n < N; ++n) {
        sum[j][n] = rounder.add(sum[j][n], sum[j - 1][n]);
        sum[j - 1][n] = all(0.0f);
      }
      if (i & (mask << (j * power))) break;
    }
  }
  for (; i < terms; ++i)
    for (int n = 0; n < N; ++n) sum[0][n] = rounder.add(sum[0][n], fetch(i, n));
  for (int j = 1; j < LEVELS; ++j)
    for (int n = 0; n < N; ++n) sum[0][n] = rounder.add(sum[0][n], sum[j][n]);
  for (int n = 0; n < N; ++n) total[n] = sum[0][n];
}

inline F partial(const float* p, int count) {  // `count` numbers, then zeros
  float lanes[LANES] = {};
  std::memcpy(lanes, p, size_t(count) * sizeof(float));
  return load(lanes);
}

inline float first(F x) {
  float lanes[LANES];
  store(lanes, x);
  return lanes[0];
}

template <typename R>
float add_one(R& rounder, float a, float b) {
  return first(rounder.add(partial(&a, 1), partial(&b, 1)));
}

// 8 lanes x 4 accumulators, as two vectors of sixteen; the accumulators are added up, then the lanes.
template <typename R>
float inner_sum(R& rounder, const Reduction& p, const float* x, const float* y) {
  constexpr int ROW = VECTOR_LANES * UNROLL;
  const int64_t rows = p.count / ROW;
  F sum[2];
  if (p.order == DOT) {
    sum[0] = sum[1] = all(0.0f);
    for (int64_t i = 0; i < rows * ROW; i += ROW)
      for (int n = 0; n < 2; ++n) sum[n] = rounder.multiply_add(load(x + i + n * LANES), load(y + i + n * LANES), sum[n]);
  } else {
    cascade<2>(rounder, rows, true, [&](int64_t i, int n) { return load(x + i * ROW + n * LANES); }, sum);
  }
  float lanes[ROW];
  store(lanes, sum[0]);
  store(lanes + LANES, sum[1]);
  F total = partial(lanes, VECTOR_LANES);
  int64_t i = rows * ROW;
  for (; i + VECTOR_LANES <= p.count; i += VECTOR_LANES) {
    const F term = partial(x + i, VECTOR_LANES);
    total = p.order == DOT ? rounder.multiply_add(term, partial(y + i, VECTOR_LANES), total) : rounder.add(total, term);
  }
  for (int n = 1; n < UNROLL; ++n) total = rounder.add(total, partial(lanes + n * VECTOR_LANES, VECTOR_LANES));
  float last = 0;
  for (; i < p.count; ++i) {
    if (p.order == DOT) last = first(rounder.multiply_add(partial(x + i, 1), partial(y + i, 1), partial(&last, 1)));
    else last = add_one(rounder, last, x[i]);
  }
  store(lanes, total);
  for (int n = 0; n < VECTOR_LANES; ++n) last = add_one(rounder, last, lanes[n]);
  return last;
}

// One vector of eight partial sums; its lanes are added in pairs, (0, 4) (1, 5) ... first.
template <typename R>
float vector_sum(R& rounder, const Reduction& p, const float* x) {
  F total = all(0.0f);
  for (int64_t i = 0; i < p.count; i += VECTOR_LANES) {
    total = rounder.add(total, partial(x + i, int(std::min<int64_t>(VECTOR_LANES, p.count - i))));
  }
  float lanes[LANES];
  store(lanes, total);
  for (int half = VECTOR_LANES / 2; half; half /= 2) {
    store(lanes, rounder.add(partial(lanes, half), partial(lanes + half, half)));
  }
  return lanes[0];
}

// Sixteen neighbouring outputs, each in one accumulator.
template <typename R>
void outer_sum(R& rounder, const Reduction& p, const float* x, float* out, int width) {
  F total;
  cascade<1>(rounder, p.count, p.order == OUTER, [&](int64_t i, int) {
    const float* line = x + i * p.stride[1];
    if (p.stride[2] == 1) return width == LANES ? load(line) : partial(line, width);
    float lanes[LANES] = {};
    for (int j = 0; j < width; ++j) lanes[j] = line[j * p.stride[2]];
    return load(lanes);
  }, &total);
  float lanes[LANES];
  store(lanes, total);
  std::memcpy(out, lanes, size_t(width) * sizeof(float));
}

template <Mode M>
__attribute__((noinline)) void reduce(const Reduction& p, int64_t number) {
  Rounder<M> rounder(Key{p.key[0], p.key[1], p.site}, uint64_t(number));
  if (p.order == OUTER || p.order == SEQUENCE) {
    const int64_t blocks = (p.inner + LANES - 1) / LANES, at = number % blocks * LANES, outer = number / blocks;
    outer_sum(rounder, p, p.input + outer * p.stride[0] + at * p.stride[2], p.output + outer * p.inner + at,
              int(std::min<int64_t>(LANES, p.inner - at)));
    return;
  }
  const float* x = p.input + number * p.stride[0];
  p.output[number] = p.order == VECTOR ? vector_sum(rounder, p, x)
                                       : inner_sum(rounder, p, x, p.factor ? p.factor + number * p.factor_stride[0] : nullptr);
}

}  // namespace

// INNER, DOT and VECTOR expect inner = 1 and numbers side by side along `count`.
MCA_API void mca_reduce(const Reduction* reduction) {
  const Reduction& p = *reduction;
  const bool outer = p.order == OUTER || p.order == SEQUENCE;
  const int64_t places = outer ? p.outer * ((p.inner + LANES - 1) / LANES) : p.outer;
#pragma omp parallel num_threads(int(p.threads)) if (p.threads > 1)
  {
    const Direction direction{Mode(p.mode)};
#pragma omp for schedule(static)
    for (int64_t i = 0; i < places; ++i) {
      if (p.mode == RANDOM) reduce<RANDOM>(p, i);
      else if (p.mode == NEARNESS) reduce<NEARNESS>(p, i);
      else reduce<NEAREST>(p, i);
    }
  }
}
