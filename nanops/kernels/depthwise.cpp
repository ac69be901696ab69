// The NaN convolution of one channel a group, one output each: vectors run across the channels, nothing is listed.
#include <cmath>
#include <limits>
#include <vector>

#include "convolution.h"
#include "simd.h"

namespace {

struct Tap {
  const float *x, *weight;  // of the first channel
};

// One channel, in double where it matters; `size` values, of which taps are those inside the image.
float one(const std::vector<Tap>& taps, int64_t at, float bias, int64_t size, int64_t least, uint8_t& skipped) {
  int64_t missing = 0;
  double sum = 0;
  for (const Tap& t : taps) {
    const float v = t.x[at];
    missing += v != v;
    sum += v == v ? double(v) : 0.0;
  }
  skipped = missing >= least;
  if (skipped) return std::numeric_limits<float>::quiet_NaN();
  const float mean = missing ? float(sum / double(size - missing)) : 0.0f;
  float total = bias;
  for (const Tap& t : taps) total = std::fma(t.x[at] == t.x[at] ? t.x[at] : mean, t.weight[at], total);
  return total;
}

// Sixteen channels from `at` on, some of whose outputs are NaN.
void dirty(const std::vector<Tap>& taps, int64_t at, const float* bias, int64_t size, int64_t least, float* y,
           uint8_t* skipped) {
  F missing = all(0.0f), sum = all(0.0f), total = load(bias + at), holes = all(0.0f);
  for (const Tap& t : taps) {
    const F v = load(t.x + at), w = load(t.weight + at), hole = where_nan(v, all(1.0f), all(0.0f));
    const F valid = where_nan(v, all(0.0f), v);
    missing = missing + hole;
    sum = sum + valid;
    total = fma(valid, w, total);
    holes = fma(hole, w, holes);
  }
  const F filled = sum / (all(float(size)) + all(-1.0f) * missing), result = fma(filled, holes, total);
  const F last = all(float(std::min<int64_t>(least, size + 1)));
  store(y, where_less(missing, last, result, all(std::numeric_limits<float>::quiet_NaN())));
  alignas(64) float count[16];
  store(count, missing);
  for (int l = 0; l < 16; ++l) skipped[l] = int64_t(count[l]) >= least;
  // A sum that overflowed, or infinities in the input: x - x is NaN.
  const F odd = where_less(missing, last, result + all(-1.0f) * result, all(0.0f));
  if (!count_nan(odd)) return;
  for (int l = 0; l < 16; ++l)
    if (!skipped[l]) y[l] = one(taps, at + l, bias[at + l], size, least, skipped[l]);
}

}  // namespace

// Fills y, and `skipped` (n, out..., channels). `weight` (taps, wide) and `bias` (wide), padded with zeros to whole
// vectors.
NAN_API int64_t nan_depthwise(const Convolution* given, const float* weight, const float* bias, uint8_t* skipped) {
  const Convolution& c = *given;
  const int64_t wide = (c.channels + 15) / 16 * 16, lines = c.out[0] * c.out[1];
#pragma omp parallel num_threads(c.threads)
  {
    std::vector<Tap> taps;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < c.n * lines; ++i) {
      const int64_t n = i / lines, z = i % lines / c.out[1], row = i % c.out[1];
      const int64_t start[2] = {z * c.stride[0] - c.before[0], row * c.stride[1] - c.before[1]};
      const Inside iz = c.inside(0, start[0]), iy = c.inside(1, start[1]);
      const float* image = c.x + n * c.volume() * c.channels;
      float* y = c.y + i * c.out[2] * c.channels;
      uint8_t* mask = skipped + i * c.out[2] * c.channels;
      for (int64_t o = 0; o < c.out[2]; ++o, y += c.channels, mask += c.channels) {
        const int64_t from = o * c.stride[2] - c.before[2];
        const Inside ix = c.inside(2, from);
        taps.clear();
        for (int64_t kz = iz.low; kz < iz.high; ++kz)
          for (int64_t ky = iy.low; ky < iy.high; ++ky) {
            const int64_t line = (start[0] + kz * c.dilation[0]) * c.size[1] + start[1] + ky * c.dilation[1];
            for (int64_t kx = ix.low; kx < ix.high; ++kx)
              taps.push_back({image + (line * c.size[2] + from + kx * c.dilation[2]) * c.channels,
                              weight + ((kz * c.kernel[1] + ky) * c.kernel[2] + kx) * wide});
          }
        const int64_t size = c.count_padding ? c.taps() : int64_t(taps.size()), least = c.least[size];
        int64_t at = 0;
        for (; at + 16 <= c.channels; at += 16) {
          F total = load(bias + at);
          for (const Tap& t : taps) total = fma(load(t.x + at), load(t.weight + at), total);
          if (count_nan(total)) {  // of a NaN in the input, or of infinities, which are told apart
            dirty(taps, at, bias, size, least, y + at, mask + at);
          } else {
            store(y + at, total);
            std::fill_n(mask + at, 16, uint8_t(0));
          }
        }
        for (; at < c.channels; ++at) y[at] = one(taps, at, bias[at], size, least, mask[at]);
      }
    }
  }
  return 0;
}
