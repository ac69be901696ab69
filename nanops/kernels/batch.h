// Windows that wait to be computed together.
#pragma once
#include <cstring>
#include <vector>

#include "counting.h"
#include "fill.h"
#include "micro.h"
#include "plan.h"
#include "sparse.h"

constexpr int BATCH = 96;  // whole windows that are computed together: the rows they read stay in cache
constexpr int OTHERS = 48;  // of others, at most: the copies of their rows should stay in the second-level cache
constexpr int64_t COPIES = 64 << 10;  // bytes of them

// Windows of one thread that wait to be computed: whole ones by one pointer each, others by one a segment.
class Batch {
 public:
  explicit Batch(const Plan& p)
      : p_(p), fill_(p), output_(p), sparse_(p, output_), pointers_(size_t(OTHERS * p.segments)), packed_(size_t(OTHERS * p.segments * p.length)),
        apart_(p.direct ? 0 : size_t(BATCH * p.room)), mask_(p.c.background ? NAN_MASK : -1) {
    const int step = micro::WINDOWS[micro::next(micro::octets(p.outputs))];
    const int64_t fit = COPIES / (4 * p.segments * p.length);
    most_ = int(std::clamp<int64_t>(fit / step * step, step, OTHERS / step * step));
  }

  void start(const Operands& o) { o_ = o; }
  Output& output() { return output_; }

  void whole(const Place& at) {
    const Convolution& c = p_.c;
    wholes_[whole_] = o_.x + ((at.start[0] * c.size[1] + at.start[1]) * c.size[2] + at.start[2]) * c.channels;
    to_[0][whole_++] = o_.y + at.output * c.outputs;
    if (whole_ == BATCH) flush_whole();
  }

  // A window inside the image that holds NaNs, `missing` of them; `sum` of its valid values, or null.
  void partial(const Place& at, int64_t missing, const float* sum) {
    if (missing >= p_.inputs && sparse_.take(o_, at, missing, 0)) return;
    fill_.begin(o_.x, sum, at, true, o_.group, missing);
    if (!p_.joined) return copied(at, missing);
    const Convolution& c = p_.c;
    const int64_t corner = (at.start[0] * c.size[1] + at.start[1]) * c.size[2] + at.start[2];
    const float* base = o_.x + corner * c.channels;
    for (int r = 0; r < p_.segments; ++r) {
      const int32_t* pixels = o_.pixels + corner + p_.rows[size_t(r)];
      int32_t dirty = 0;
      for (int64_t k = 0; k < c.kernel[2]; ++k) dirty |= pixels[k];
      const float* from = base + p_.shift[size_t(r)];
      if (dirty & mask_) {
        float* to = packed_.data() + size_t(used_++) * size_t(p_.length);
        fill_.pack(to, from, p_.length, r * p_.length);
        from = to;
      }
      pointers_[size_t(r * OTHERS + others_)] = from;
    }
    to_[1][others_++] = o_.y + at.output * c.outputs;
    if (others_ == most_) flush_others();
  }

  // A window that touches the padding with `outside` of its taps, and may hold NaNs.
  void other(const Place& at, int64_t missing, int64_t outside, const float* sum) {
    if (sparse_.take(o_, at, missing, outside)) return;
    if (missing) fill_.begin(o_.x, sum, at, false, o_.group, missing);
    copied(at, missing);
  }

  void flush() {
    flush_whole();
    flush_others();
    sparse_.flush(o_);
  }

 private:
  // Any window, by copies of what holds NaN or reaches beyond the image.
  void copied(const Place& at, int64_t missing) {
    const Convolution& c = p_.c;
    int segment = 0;
    for (int64_t z = 0; z < c.kernel[0]; ++z)
      for (int64_t y = 0; y < c.kernel[1]; ++y) {
        const int64_t iz = at.start[0] + z * c.dilation[0], iy = at.start[1] + y * c.dilation[1];
        const bool in = iz >= 0 && iz < c.size[0] && iy >= 0 && iy < c.size[1];
        const int64_t line = (iz * c.size[1] + iy) * c.size[2];
        if (p_.joined) {
          const float* from = in ? row(line, at.start[2], missing, segment) : zeros();
          pointers_[size_t(segment++ * OTHERS + others_)] = from;
        } else {
          for (int64_t k = 0; k < c.kernel[2]; ++k, ++segment) {
            const int64_t ix = at.start[2] + k * c.dilation[2];
            const float* from = in && ix >= 0 && ix < c.size[2] ? pixel(line + ix, segment) : zeros();
            pointers_[size_t(segment * OTHERS + others_)] = from;
          }
        }
      }
    to_[1][others_++] = o_.y + at.output * c.outputs;
    if (others_ == most_) flush_others();
  }

  // A row of taps: where it lies in the image if it is clean, else a copy.
  const float* row(int64_t line, int64_t first, int64_t missing, int segment) {
    const Convolution& c = p_.c;
    const int64_t kw = c.kernel[2], last = first + kw;
    const int64_t low = std::max<int64_t>(first, 0), high = std::min(last, c.size[2]);
    if (low >= high) return zeros();
    const float* from = o_.x + (line + low) * c.channels;
    bool dirty = false;
    if (missing)
      for (int64_t k = low; k < high; ++k) dirty |= (o_.pixels[line + k] & mask_) != 0;
    if (!dirty && low == first && high == last) return from;
    float* to = packed_.data() + size_t(used_++) * size_t(p_.length);
    const int64_t inputs = p_.inputs, element = segment * p_.length;
    std::fill(to, to + (low - first) * inputs, 0.0f);
    float* middle = to + (low - first) * inputs;
    if (dirty)
      fill_.pack(middle, from, (high - low) * inputs, element + (low - first) * inputs);
    else
      std::copy(from, from + (high - low) * inputs, middle);
    std::fill(to + (high - first) * inputs, to + p_.length, 0.0f);
    return to;
  }

  const float* pixel(int64_t at, int segment) {
    const float* from = o_.x + at * p_.c.channels;
    if (!(o_.pixels[at] & mask_)) return from;
    float* to = packed_.data() + size_t(used_++) * size_t(p_.length);
    fill_.pack(to, from, p_.inputs, segment * p_.length);
    return to;
  }

  const float* zeros() {
    if (zeros_.empty()) zeros_.assign(size_t(p_.length), 0.0f);
    return zeros_.data();
  }

  void flush_whole() {
    if (whole_) compute({p_.segments, p_.length, p_.shift.data(), 0}, wholes_, to_[0], whole_);
    whole_ = 0;
  }

  void flush_others() {
    if (others_) compute({p_.segments, p_.length, nullptr, OTHERS}, pointers_.data(), to_[1], others_);
    others_ = used_ = 0;
  }

  void compute(const micro::Segments& s, const float* const* from, float* const* to, int count) {
    float* outs[BATCH];
    if (p_.direct) {
      std::copy(to, to + count, outs);
      micro::run(count, p_.outputs, s, o_.weight, from, outs, o_.bias);
      return;
    }
    for (int i = 0; i < count; ++i) outs[i] = apart_.data() + i * p_.room;
    micro::run(count, p_.outputs, s, o_.weight, from, outs, o_.bias);
    for (int i = 0; i < count; ++i) output_.move(apart_.data() + i * p_.room, to[i]);
  }

  const Plan& p_;
  Fill fill_;
  Output output_;
  Sparse sparse_;
  Operands o_{};
  int whole_ = 0, others_ = 0, used_ = 0, most_ = OTHERS;
  const float* wholes_[BATCH];
  float* to_[2][BATCH];
  std::vector<const float*> pointers_;
  std::vector<float> packed_, apart_, zeros_;
  const int32_t mask_;
};
