// Elementwise arithmetic in one sweep: each result rounded as the mode says.
//
// Elements are numbered in contiguous order; every 2048 of them are one place of the random numbers.
#include <algorithm>
#include <cstring>

#include "abi.h"
#include "normal.h"
#include "rounder.h"

enum Operation : int32_t { ADD, SUBTRACT, MULTIPLY, DIVIDE, MULTIPLY_ADD, ROOT, LEAKY, ROUND, NOISE };

struct Operand {
  const void* data;
  int64_t stride[3];  // in elements; 0 repeats
  int64_t wide;       // double, else float
};

struct Sweep {
  Operand operand[3];
  float* output;     // contiguous
  int64_t size[3];
  int64_t operation, operands, mode;
  uint32_t key[2], site, threads;
};

namespace {

constexpr int BLOCK = 2048, LANES = 16;

// The elements `first` .. `first + count - 1` of an operand, side by side.
template <typename T>
void gather(const Operand& x, const int64_t* size, int64_t first, int64_t count, T* target) {
  const T* data = static_cast<const T*>(x.data);
  int64_t inner = first % size[2], middle = first / size[2] % size[1], outer = first / size[2] / size[1];
  while (count > 0) {
    const int64_t run = std::min(count, size[2] - inner);
    const T* source = data + outer * x.stride[0] + middle * x.stride[1] + inner * x.stride[2];
    if (x.stride[2] == 1) std::memcpy(target, source, size_t(run) * sizeof(T));
    else if (x.stride[2] == 0) std::fill(target, target + run, *source);
    else for (int64_t i = 0; i < run; ++i) target[i] = source[i * x.stride[2]];
    target += run;
    count -= run;
    inner = 0;
    if (++middle == size[1]) { middle = 0; ++outer; }
  }
}

template <typename T>
const T* block(const Operand& x, const int64_t* size, int64_t first, int64_t count, T* buffer) {
  const bool contiguous = x.stride[2] == 1 && (x.stride[1] == size[2] || size[1] == 1) &&
                          (x.stride[0] == size[1] * size[2] || size[0] == 1);
  if (contiguous && count == BLOCK) return static_cast<const T*>(x.data) + first;
  gather(x, size, first, count, buffer);
  std::fill(buffer + count, buffer + (count + LANES - 1) / LANES * LANES, T(0));
  return buffer;
}

struct Buffers {
  alignas(64) float single[3][BLOCK];
  alignas(64) double wide[2][BLOCK];
  alignas(64) float result[BLOCK];
};

// value + z std, z standard normal; no noise where that is not finite.
void add_noise(const Key& key, uint64_t place, const double* value, const double* std, double* sum, int64_t count) {
  for (int64_t i = 0; i < count; i += 4 * LANES) {
    F z[4];
    normals(draw(key, place, uint32_t(1000 + i / (4 * LANES)), 0), z);
    float normal[4 * LANES];
    for (int n = 0; n < 4; ++n) store(normal + n * LANES, z[n]);
    for (int64_t j = i; j < std::min(count, i + 4 * LANES); j += D::width) {
      const D noise = widen(normal + (j - i)) * load(std + j);
      const D size = number(bits(noise) & all(~(uint64_t(1) << 63)));
      store(sum + j, load(value + j) + where_less(size, all(__builtin_inf()), noise, all(0.0)));
    }
  }
}

template <Mode M>
__attribute__((noinline)) void sweep_block(const Sweep& s, int64_t number, Buffers& b) {
  const int64_t total = s.size[0] * s.size[1] * s.size[2], first = number * BLOCK;
  const int64_t count = std::min<int64_t>(BLOCK, total - first), vectors = (count + LANES - 1) / LANES;
  const Key key{s.key[0], s.key[1], s.site};
  Rounder<M> rounder(key, uint64_t(number));
  const float* x[3] = {b.single[0], b.single[0], b.single[0]};
  const double* wide[2] = {b.wide[0], b.wide[1]};
  for (int64_t i = 0; i < s.operands; ++i) {
    const Operand& operand = s.operand[i];
    if (operand.wide) wide[i] = block<double>(operand, s.size, first, count, b.wide[i]);
    else x[i] = block<float>(operand, s.size, first, count, b.single[i]);
    if (!operand.wide && s.operation >= ROUND) {
      for (int64_t j = 0; j < vectors * LANES; ++j) b.wide[i][j] = double(x[i][j]);
      wide[i] = b.wide[i];
    }
  }
  if (s.operation == NOISE && M != NEAREST) {
    add_noise(key, uint64_t(number), wide[0], wide[1], b.wide[0], vectors * LANES);
    wide[0] = b.wide[0];
  }
  float* out = count == BLOCK ? s.output + first : b.result;
  const U negative = all(SIGN);
  for (int64_t i = 0; i < vectors * LANES; i += LANES) {
    F y;
    switch (s.operation) {
      case ADD: y = rounder.add(load(x[0] + i), load(x[1] + i)); break;
      case SUBTRACT: y = rounder.add(load(x[0] + i), flip(load(x[1] + i), negative)); break;
      case MULTIPLY: y = rounder.multiply(load(x[0] + i), load(x[1] + i)); break;
      case DIVIDE: y = rounder.divide(load(x[0] + i), load(x[1] + i)); break;
      case MULTIPLY_ADD: y = rounder.multiply_add(load(x[0] + i), load(x[1] + i), load(x[2] + i)); break;
      case LEAKY: y = load(x[0] + i); y = where_positive(y, y, rounder.multiply(y, load(x[1] + i))); break;
      case ROOT: y = rounder.square_root(load(x[0] + i)); break;
      default: y = rounder.round(wide[0] + i);
    }
    store(out + i, y);
  }
  if (count < BLOCK) std::memcpy(s.output + first, b.result, size_t(count) * sizeof(float));
}

}  // namespace

MCA_API void mca_elementwise(const Sweep* sweep) {
  const Sweep& s = *sweep;
  const int64_t blocks = (s.size[0] * s.size[1] * s.size[2] + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(int(s.threads)) if (s.threads > 1)
  {
    const Direction direction{Mode(s.mode)};
    Buffers buffers;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < blocks; ++i) {
      if (s.mode == RANDOM) sweep_block<RANDOM>(s, i, buffers);
      else if (s.mode == NEARNESS) sweep_block<NEARNESS>(s, i, buffers);
      else sweep_block<NEAREST>(s, i, buffers);
    }
  }
}
