// Weights as the micro-kernels read them.
#pragma once
#include <algorithm>
#include <cmath>

#include "convolution.h"
#include "micro.h"
#include "plan.h"
#include "room.h"

// For each group: blocks of outputs, (taps, inputs, outputs of the block); the bias; the sums of each tap's weights over
// the inputs, (taps, outputs). Outputs are padded with zeros to whole octets.
class Packed {
 public:
  explicit Packed(const Plan& p)
      : p_(p), size_(p.room * (p.c.taps() * (p.inputs + 1) + 1)), all_(size_ * p.c.groups) {
    const int64_t octets = p.room / micro::OCTET;
    const int threads = p.c.groups * p.room * p.c.taps() * p.inputs < SMALL ? 1 : int(p.c.threads);
    bool finite = true;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : finite)
    for (int64_t i = 0; i < p.c.groups * octets; ++i) finite = octet(i / octets, int(i % octets)) && finite;
    summable_ = finite;
  }

  const float* weight(int64_t group) const { return all_.begin() + group * size_; }
  const float* bias(int64_t group) const { return weight(group) + p_.room * p_.c.taps() * p_.inputs; }
  const float* sums(int64_t group) const { return bias(group) + p_.room; }
  bool summable() const { return summable_; }  // no sum is infinite or NaN

 private:
  static constexpr int64_t NEAR = 32;
  static constexpr int64_t SMALL = 1 << 15;  // numbers that are not worth a second thread

  // Eight outputs; returns whether their sums are finite.
  bool octet(int64_t group, int number) {
    const Convolution& c = p_.c;
    const int64_t taps = c.taps(), begin = number * micro::OCTET;
    const int64_t some = std::min<int64_t>(micro::OCTET, p_.outputs - begin), from = group * p_.outputs + begin;
    float* const start = all_.begin() + group * size_;
    float* const bias = start + p_.room * taps * p_.inputs + begin;
    float* const sums = bias + p_.room;
    const float* w = c.weight + from * c.strides[0];
    if (some == micro::OCTET)
      weights<micro::OCTET>(w, some, number, start, sums);
    else
      weights<0>(w, some, number, start, sums);
    for (int64_t o = 0; o < micro::OCTET; ++o) bias[o] = c.bias && o < some ? c.bias[from + o] : 0.0f;
    bool finite = true;
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t o = 0; o < micro::OCTET; ++o) finite = finite && std::isfinite(sums[t * p_.room + o]);
    return finite;
  }

  // FULL: how many outputs there are, 0 where that is not known.
  template <int64_t FULL>
  void weights(const float* from, int64_t some, int number, float* to, float* sums) {
    const Convolution& c = p_.c;
    const int64_t taps = c.taps(), inputs = p_.inputs, count = FULL ? FULL : some;
    int first = 0, wide = 0;  // octets before the block, and in it
    for (int left = int(p_.room / micro::OCTET); first + (wide = micro::next(left)) <= number; left -= wide) first += wide;
    const int64_t step = wide * micro::OCTET;
    to += first * micro::OCTET * taps * inputs + (number - first) * micro::OCTET;
    for (int64_t t = 0; t < taps; ++t) std::fill_n(sums + t * p_.room, micro::OCTET, 0.0f);
    for (int64_t near = 0; near < inputs; near += NEAR)  // so many inputs of eight outputs stay in cache
      for (int64_t t = 0; t < taps; ++t) {
        float sum[micro::OCTET] = {};
        for (int64_t i = near; i < std::min(inputs, near + NEAR); ++i) {
          float v[micro::OCTET] = {};
          for (int64_t o = 0; o < count; ++o) v[o] = from[o * c.strides[0] + i * c.strides[1] + t * c.strides[2]];
          for (int o = 0; o < micro::OCTET; ++o) sum[o] += v[o];
          std::copy(v, v + micro::OCTET, to + (t * inputs + i) * step);
        }
        for (int o = 0; o < micro::OCTET; ++o) sums[t * p_.room + o] += sum[o];
      }
  }

  const Plan& p_;
  const int64_t size_;
  const Room<float> all_;
  bool summable_ = true;
};
