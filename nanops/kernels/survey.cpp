// How many NaNs does each pixel, and each window, hold? Every value is read once; windows by sums along the axes.
#include <algorithm>
#include <cstring>
#include <vector>

#include "convolution.h"
#include "counting.h"

namespace {

// Counts of the pixels of one row; returns the NaNs of the row.
int64_t row(const Convolution& c, const float* x, const float* background, int32_t* pixels) {
  const int64_t width = c.size[2], inputs = c.inputs();
  int64_t total = 0;
  for (int64_t g = 0; g < c.groups; ++g) {
    int32_t* p = pixels + g * c.volume();
    const float* v = x + g * inputs;
    for (int64_t i = 0; i < width; ++i, v += c.channels) {
      const int32_t found = pixel_nans(v, inputs);
      total += found;
      p[i] = found;
      if (background && !std::memcmp(v, background + g * inputs, 4 * size_t(inputs))) p[i] += UNIFORM;
    }
  }
  return total;
}

int64_t pixels(const Convolution& c) {
  const int64_t rows = c.size[0] * c.size[1], width = c.size[2];
  int64_t total = 0;
#pragma omp parallel for num_threads(c.threads) reduction(+ : total) schedule(static)
  for (int64_t i = 0; i < c.n * rows; ++i) {
    const int64_t n = i / rows, r = i % rows;
    total += row(c, c.x + i * width * c.channels, c.background ? c.background + n * c.channels : nullptr,
                 c.pixels + n * c.groups * c.volume() + r * width);
  }
  return total;
}

inline Inside inside(const Convolution& c, int axis, int64_t o) {
  return c.inside(axis, o * c.stride[axis] - c.before[axis]);
}

// Sums over the last axis: across[i][o] for each row i of the image.
void along(const Convolution& c, const int32_t* pixels, int32_t* across) {
  const int64_t out = c.out[2];
  // Windows whose taps all lie inside need no question asked for each tap.
  int64_t first = 0, last = out;
  while (first < out && (inside(c, 2, first).low > 0 || inside(c, 2, first).high < c.kernel[2])) ++first;
  while (last > first && inside(c, 2, last - 1).high < c.kernel[2]) --last;
  for (int64_t o = 0; o < out; ++o) {
    if (o == first) o = last;
    if (o >= out) break;
    const Inside in = inside(c, 2, o);
    int32_t sum = 0;
    for (int64_t k = in.low; k < in.high; ++k) sum += pixels[o * c.stride[2] - c.before[2] + k * c.dilation[2]];
    across[o] = sum;
  }
  if (first >= last) return;
  std::fill(across + first, across + last, 0);
  for (int64_t k = 0; k < c.kernel[2]; ++k) {
    const int32_t* p = pixels + k * c.dilation[2] - c.before[2];
    if (c.stride[2] == 1)
      for (int64_t o = first; o < last; ++o) across[o] += p[o];
    else
      for (int64_t o = first; o < last; ++o) across[o] += p[o * c.stride[2]];
  }
}

void windows(const Convolution& c, int64_t found[3]) {
  const int64_t rows = c.size[0] * c.size[1], lines = c.out[0] * c.out[1], planes = c.n * c.groups;
  const bool same = c.windows == c.pixels;
  std::vector<int32_t> across(same ? 0 : size_t(planes * rows * c.out[2]));
  if (!same)
#pragma omp parallel for num_threads(c.threads) schedule(static)
    for (int64_t i = 0; i < planes * rows; ++i) along(c, c.pixels + i * c.size[2], across.data() + i * c.out[2]);
  int64_t skipped = 0, partial = 0, uniform = 0;
  const int32_t mask = c.background ? NAN_MASK : -1;
  const int64_t taps = c.taps();
#pragma omp parallel for num_threads(c.threads) schedule(static) reduction(+ : skipped, partial, uniform)
  for (int64_t i = 0; i < planes * lines; ++i) {
    const int64_t plane = i / lines, z = i % lines / c.out[1], y = i % c.out[1];
    const Inside iz = inside(c, 0, z), iy = inside(c, 1, y);
    int32_t* sums = c.windows + i * c.out[2];
    if (!same) {
      std::fill(sums, sums + c.out[2], 0);
      for (int64_t kz = iz.low; kz < iz.high; ++kz)
        for (int64_t ky = iy.low; ky < iy.high; ++ky) {
          const int64_t at = (z * c.stride[0] - c.before[0] + kz * c.dilation[0]) * c.size[1] +
                             y * c.stride[1] - c.before[1] + ky * c.dilation[1];
          const int32_t* a = across.data() + (plane * rows + at) * c.out[2];
          for (int64_t o = 0; o < c.out[2]; ++o) sums[o] += a[o];
        }
    }
    const int64_t deep = (iz.high - iz.low) * (iy.high - iy.low);
    int64_t s = 0, p = 0;
    if (c.count_padding) {
      const int64_t least = c.least[taps];
      for (int64_t o = 0; o < c.out[2]; ++o) {
        const int64_t count = sums[o] & mask;
        s += count >= least;
        p += count > 0 && count < least;
      }
    } else {
      for (int64_t o = 0; o < c.out[2]; ++o) {
        const Inside ix = inside(c, 2, o);
        const int64_t count = sums[o] & mask, least = c.least[deep * (ix.high - ix.low)];
        s += count >= least;
        p += count > 0 && count < least;
      }
    }
    skipped += s;
    partial += p;
    if (c.background)
      for (int64_t o = 0; o < c.out[2]; ++o) uniform += (sums[o] >> UNIFORM_BIT) == taps;
  }
  found[0] = skipped;
  found[1] = partial;
  found[2] = uniform;
}

}  // namespace

// Whether one of `count` numbers is NaN.
NAN_API int64_t nan_any(const float* x, int64_t count, int64_t threads) {
  constexpr int64_t BLOCK = 1 << 14;
  int found = 0;
#pragma omp parallel for num_threads(int(threads)) schedule(static) reduction(| : found)
  for (int64_t b = 0; b < (count + BLOCK - 1) / BLOCK; ++b)
    if (!found) found = any_nans(x + b * BLOCK, std::min(BLOCK, count - b * BLOCK));
  return found;
}

// Writes for each sample the most frequent, bit for bit, of the pixels at some places, the first of several; returns
// how often that of the least certain sample occurs.
NAN_API int64_t nan_background(const float* x, int64_t n, int64_t volume, int64_t channels, const int64_t* places,
                               int64_t count, float* background) {
  int64_t least = count;
  for (int64_t i = 0; i < n; ++i) {
    const auto pixel = [&](int64_t k) { return x + (i * volume + places[k]) * channels; };
    int64_t most = 0;
    for (int64_t a = 0; a < count; ++a) {
      int64_t votes = 0;
      for (int64_t b = 0; b < count; ++b) votes += !std::memcmp(pixel(a), pixel(b), 4 * size_t(channels));
      if (votes <= most) continue;
      most = votes;
      std::memcpy(background + i * channels, pixel(a), 4 * size_t(channels));
    }
    least = std::min(least, most);
  }
  return least;
}

// Fills pixels, windows and found.
NAN_API int64_t nan_survey(Convolution* c) {
  c->found[0] = pixels(*c);
  windows(*c, c->found + 1);
  return 0;
}
