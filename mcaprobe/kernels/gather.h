// Which inputs do 64 neighbouring outputs meet? They are copied side by side, one line for each product.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "products.h"
#include "simd.h"

constexpr int COLUMNS = 64;

// Outputs `first` .. `first + COLUMNS - 1` of all output positions of all images, in contiguous order.
class Panel {
 public:
  Panel(const Products& p, int64_t first, int64_t total) : p(p) {
    const int64_t line = p.outputs[2];
    int64_t at = first;
    const int64_t end = std::min(total, first + COLUMNS);
    used = int(end - first);
    while (at < end) {
      int64_t rest = at / line;
      Piece piece;
      piece.column = int(at - first);
      piece.place[2] = at % line;
      piece.count = int(std::min(line - piece.place[2], end - at));
      piece.place[1] = rest % p.outputs[1];
      rest /= p.outputs[1];
      piece.place[0] = rest % p.outputs[0];
      piece.image = rest / p.outputs[0];
      pieces.push_back(piece);
      at += piece.count;
    }
    locate();
  }

  // Copy the line of one product: `source` is the input channel in the first image.
  void line(int tap, const float* source, float* target) const {
    const Run* run = &runs[size_t(tap) * pieces.size()];
    const int64_t stride = p.step[2] * p.input_stride[4];
    if (stride == 1 && run->low == 0 && run->high == COLUMNS) {  // the usual case: a stretch of one line
      for (int n = 0; n < COLUMNS; n += 16) store(target + n, load(source + run->from + n));
      return;
    }
    if (used < COLUMNS) std::memset(target, 0, COLUMNS * sizeof(float));
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Piece& piece = pieces[i];
      const Run& r = run[i];
      float* t = target + piece.column;
      const float* s = source + r.from;
      for (int j = 0; j < r.low; ++j) t[j] = 0;
      if (stride == 1) {
        std::memcpy(t + r.low, s + r.low, size_t(r.high - r.low) * sizeof(float));
      } else {
        for (int j = r.low; j < r.high; ++j) t[j] = s[j * stride];
      }
      for (int j = r.high; j < piece.count; ++j) t[j] = 0;
    }
  }

  // Channels lie far apart, often at a distance that lets them displace each other in the cache.
  void prefetch(int tap, const float* source) const {
    const float* from = source + runs[size_t(tap) * pieces.size()].from;
    for (int n = 0; n <= COLUMNS; n += 16) _mm_prefetch((const char*)(from + n), _MM_HINT_T0);
  }

  // Write one row of results.
  void scatter(const float* source, float* row) const {
    const int64_t stride = p.output_stride[4];
    for (const Piece& piece : pieces) {
      float* t = row + piece.image * p.output_stride[0];
      for (int d = 0; d < 3; ++d) t += piece.place[d] * p.output_stride[2 + d];
      const float* s = source + piece.column;
      if (stride == 1) {
        std::memcpy(t, s, size_t(piece.count) * sizeof(float));
      } else {
        for (int j = 0; j < piece.count; ++j) t[j * stride] = s[j];
      }
    }
  }

  int used;  // columns that exist

 private:
  struct Piece { int column, count; int64_t image, place[3]; };  // outputs of one line
  struct Run { int low, high; int64_t from; };                   // of these, the ones inside the input

  void locate() {
    runs.resize(size_t(p.taps) * pieces.size());
    for (int64_t tap = 0; tap < p.taps; ++tap) {
      const int32_t* offset = p.offset + 3 * tap;
      for (size_t i = 0; i < pieces.size(); ++i) {
        const Piece& piece = pieces[i];
        Run& run = runs[size_t(tap) * pieces.size() + i];
        int64_t at[3];
        for (int d = 0; d < 3; ++d) at[d] = piece.place[d] * p.step[d] + offset[d];
        run.from = piece.image * p.input_stride[0];
        for (int d = 0; d < 3; ++d) run.from += at[d] * p.input_stride[2 + d];
        const bool inside = at[0] >= 0 && at[0] < p.size[0] && at[1] >= 0 && at[1] < p.size[1];
        // j is inside where 0 <= at + j step < size.
        const int64_t step = p.step[2];
        const int64_t low = at[2] >= 0 ? 0 : (-at[2] + step - 1) / step;
        const int64_t high = at[2] >= p.size[2] ? 0 : (p.size[2] - 1 - at[2]) / step + 1;
        run.low = inside ? int(std::min<int64_t>(low, piece.count)) : piece.count;
        run.high = inside ? int(std::clamp<int64_t>(high, run.low, piece.count)) : piece.count;
      }
    }
  }

  const Products& p;
  std::vector<Piece> pieces;
  std::vector<Run> runs;
};
