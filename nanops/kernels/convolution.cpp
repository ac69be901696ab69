// The NaN convolution: windows that are to be computed are collected, whatever their places, and computed in batches.
#include <cstring>
#include <limits>
#include <vector>

#include "batch.h"
#include "convolution.h"
#include "packing.h"
#include "room.h"
#include "turning.h"

namespace {

constexpr int64_t CACHED = 1 << 20;  // bytes of outputs that the second-level cache holds

// Sums of the valid values of the windows of one line, from those of the pixels.
void sum_line(const Convolution& c, const float* sums, int64_t z, int64_t y, std::vector<float>& across, float* to) {
  const int64_t width = c.size[2];
  const int64_t start[2] = {z * c.stride[0] - c.before[0], y * c.stride[1] - c.before[1]};
  const Inside iz = c.inside(0, start[0]), iy = c.inside(1, start[1]);
  across.assign(size_t(width), 0.0f);
  for (int64_t kz = iz.low; kz < iz.high; ++kz)
    for (int64_t ky = iy.low; ky < iy.high; ++ky) {
      const float* from = sums + ((start[0] + kz * c.dilation[0]) * c.size[1] + start[1] + ky * c.dilation[1]) * width;
      for (int64_t k = 0; k < width; ++k) across[size_t(k)] += from[k];
    }
  std::fill_n(to, c.out[2], 0.0f);
  for (int64_t k = 0; k < c.kernel[2]; ++k) {
    const int64_t shift = k * c.dilation[2] - c.before[2], step = c.stride[2];
    const int64_t low = shift >= 0 ? 0 : (-shift + step - 1) / step;
    const int64_t high = std::min(c.out[2], shift >= width ? 0 : (width - shift + step - 1) / step);
    const float* from = across.data() + shift;
    if (step == 1)
      for (int64_t o = low; o < high; ++o) to[o] += from[o];
    else
      for (int64_t o = low; o < high; ++o) to[o] += from[o * step];
  }
}

// Fills outputs with NaN; `past` the caches, where they would not stay there: no line has to be read first.
void fill_nan(float* from, float* to, bool past) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  if (past) {
    while (from < to && reinterpret_cast<uintptr_t>(from) % 64) *from++ = nan;
    for (const F value = all(nan); from + 16 <= to; from += 16) stream(from, value);
  }
  std::fill(from, to, nan);
}

// One line of outputs: skipped windows become NaN, uniform ones the known vector, the others join the batch.
void line(const Plan& p, Batch& batch, const int32_t* counts, const float* sums, float* y, const float* known, int64_t z,
          int64_t row) {
  const Convolution& c = p.c;
  const int64_t taps = c.taps(), out = c.out[2];
  Place at{{z * c.stride[0] - c.before[0], row * c.stride[1] - c.before[1], 0}, (z * c.out[1] + row) * out};
  const int64_t deep[2] = {c.inside(0, at.start[0]).count(), c.inside(1, at.start[1]).count()};
  // Windows that do not touch the padding: from `first` to before `last`.
  const int64_t reach = c.size[2] + c.before[2] - (c.kernel[2] - 1) * c.dilation[2] - 1;
  const bool in = deep[0] == c.kernel[0] && deep[1] == c.kernel[1] && reach >= 0;
  const int64_t first = in ? std::min(out, (std::max<int64_t>(c.before[2], 0) + c.stride[2] - 1) / c.stride[2]) : out;
  const int64_t last = in ? std::min(out, reach / c.stride[2] + 1) : out;
  const int32_t mask = c.background ? NAN_MASK : -1;
  const bool past = 4 * c.n * c.places() * c.outputs > CACHED;
  y += at.output * c.outputs;
  for (int64_t o = 0; o < out; ++o) {
    const int64_t missing = counts[o] & mask;
    const bool inner = o >= first && o < last;
    const int64_t within = inner ? taps : deep[0] * deep[1] * c.inside(2, o * c.stride[2] - c.before[2]).count();
    const int64_t least = c.least[c.count_padding ? taps : within];
    if (missing >= least) {
      if (c.groups > 1 || !(c.count_padding || inner)) {
        fill_nan(y + o * c.outputs, y + o * c.outputs + p.outputs, past);
        continue;
      }
      int64_t upto = o + 1;  // neighbours that are skipped too are filled in one go
      while (upto < out && (counts[upto] & mask) >= least && (c.count_padding || upto < last)) ++upto;
      fill_nan(y + o * c.outputs, y + upto * c.outputs, past);
      o = upto - 1;
      continue;
    }
    if (known && inner && (counts[o] >> UNIFORM_BIT) == taps) {
      std::memcpy(y + o * c.outputs, known, 4 * size_t(p.outputs));
      continue;
    }
    Place here = at;
    here.start[2] = o * c.stride[2] - c.before[2];
    here.output += o;
    if (!inner)
      batch.other(here, missing, taps - within, sums ? sums + o : nullptr);
    else if (missing)
      batch.partial(here, missing, sums ? sums + o : nullptr);
    else
      batch.whole(here);
  }
}

// Windows of one image and group that hold NaNs and, as far as windows inside the image go, are not skipped.
int64_t partial_windows(const Convolution& c, const int32_t* counts) {
  const int32_t mask = c.background ? NAN_MASK : -1, least = int32_t(std::min<int64_t>(c.least[c.taps()], 1 << 30));
  int64_t found = 0;
  for (int64_t i = 0; i < c.places(); ++i) found += (counts[i] & mask) > 0 && (counts[i] & mask) < least;
  return found;
}

// The output of a window of background only: that of the first one.
void background_output(const Plan& p, Batch& batch, const int32_t* counts, float* y, std::vector<float>& known) {
  const Convolution& c = p.c;
  for (int64_t i = 0; i < c.places(); ++i) {
    if ((counts[i] >> UNIFORM_BIT) != c.taps() || (counts[i] & NAN_MASK) >= c.least[c.taps()]) continue;
    const int64_t o[3] = {i / (c.out[1] * c.out[2]), i / c.out[2] % c.out[1], i % c.out[2]};
    Place at{{}, i};
    for (int a = 0; a < 3; ++a) at.start[a] = o[a] * c.stride[a] - c.before[a];
    if (const int64_t missing = counts[i] & NAN_MASK)
      batch.partial(at, missing, nullptr);
    else
      batch.whole(at);
    batch.flush();
    known.assign(y + i * c.outputs, y + i * c.outputs + p.outputs);
    return;
  }
}

}  // namespace

// Fills y, from what the survey found.
NAN_API int64_t nan_convolve(const Convolution* given) {
  const Convolution& c = *given;
  const Plan plan(c);
  const int64_t lines = c.out[0] * c.out[1], planes = c.n * c.groups;
  const Packed packed(plan);
  std::vector<std::vector<float>> known(c.background ? size_t(planes) : 0);
  // Where many windows of an image need their mean, each of its pixels is added up once.
  std::vector<std::vector<float>> sums(size_t(c.fill == MEAN && c.found[2] ? planes : 0));
#pragma omp parallel for num_threads(c.threads) schedule(dynamic, 1)
  for (int64_t plane = 0; plane < int64_t(sums.size()); ++plane)
    if (partial_windows(c, c.windows + plane * c.places()) * plan.segments > c.volume())
      sums[size_t(plane)].resize(size_t(c.volume()));
  if (!sums.empty()) {
    const int64_t width = c.size[2], rows = c.volume() / width;
#pragma omp parallel for num_threads(c.threads) schedule(static)
    for (int64_t i = 0; i < planes * rows; ++i) {
      const int64_t plane = i / rows, n = plane / c.groups;
      if (sums[size_t(plane)].empty()) continue;
      const float* v = c.x + (n * rows + i % rows) * width * c.channels + plane % c.groups * plan.inputs;
      float* to = sums[size_t(plane)].data() + i % rows * width;
      for (int64_t k = 0; k < width; ++k) to[k] = sum_valid(v + k * c.channels, plan.inputs);
    }
  }
  const int64_t some = std::max<int64_t>(1, std::min<int64_t>(512 / c.out[2], planes * lines / (4 * c.threads)));
#pragma omp parallel num_threads(c.threads)
  {
    Batch batch(plan);
    std::vector<float> across, line_sums(size_t(c.out[2]));
    const auto result = [&](int64_t plane) {
      return c.y + plane / c.groups * c.places() * c.outputs + plane % c.groups * plan.outputs;
    };
    const auto begin = [&](int64_t plane) {
      const int64_t n = plane / c.groups, g = plane % c.groups;
      batch.start({c.x + n * c.volume() * c.channels + g * plan.inputs, packed.weight(g), packed.bias(g),
                   packed.summable() ? packed.sums(g) : nullptr, c.pixels + plane * c.volume(), result(plane), g});
    };
    if (c.background)
#pragma omp for schedule(dynamic, 1)
      for (int64_t plane = 0; plane < planes; ++plane) {
        begin(plane);
        background_output(plan, batch, c.windows + plane * c.places(), result(plane), known[size_t(plane)]);
      }
    int64_t now = -1;
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t part = 0; part < (planes * lines + some - 1) / some; ++part) {
      for (int64_t i = part * some; i < std::min(planes * lines, (part + 1) * some); ++i) {
        const int64_t plane = i / lines, at = i % lines;
        if (plane != now) {
          batch.flush();
          begin(plane);
          now = plane;
        }
        const int64_t z = at / c.out[1], y = at % c.out[1];
        const float* vector = c.background && !known[size_t(plane)].empty() ? known[size_t(plane)].data() : nullptr;
        const bool summed = !sums.empty() && !sums[size_t(plane)].empty();
        if (summed) sum_line(c, sums[size_t(plane)].data(), z, y, across, line_sums.data());
        line(plan, batch, c.windows + i * c.out[2], summed ? line_sums.data() : nullptr, result(plane), vector, z, y);
      }
    }
    batch.flush();
    _mm_sfence();  // outputs that went past the caches
  }
  return 0;
}

// Fills y. Pixels and windows are counted aside; x and y are turned where they lie channels first.
NAN_API int64_t nan_convolve_alone(const Convolution* given) {
  Convolution c = *given;
  const Room<int32_t> pixels(c.n * c.groups * c.volume()), windows(c.n * c.groups * c.places());
  const Room<float> x(c.x_first ? c.n * c.volume() * c.channels : 0), y(c.y_first ? c.n * c.places() * c.outputs : 0);
  c.pixels = pixels.begin(), c.windows = windows.begin();
  if (c.x_first) {
    turn(given->x, x.begin(), c.n, c.channels, c.volume(), int(c.threads));
    c.x = x.begin();
  }
  if (c.y_first) c.y = y.begin();
  nan_survey(&c);
  nan_convolve(&c);
  if (c.y_first) turn(c.y, given->y, c.n, c.places(), c.outputs, int(c.threads));
  return 0;
}
