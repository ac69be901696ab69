// What does not depend on the window, and where a window lies.
#pragma once
#include <cstdint>
#include <vector>

#include "convolution.h"
#include "epilogue.h"
#include "micro.h"
#include "simd.h"

struct Plan {
  const Convolution& c;
  int64_t inputs, outputs;  // of a group
  int64_t room;             // outputs rounded up to whole octets
  bool joined;              // a row of taps is one run of numbers
  int64_t length;           // of a segment
  int segments;
  bool direct;              // outputs are written where they belong
  std::vector<int64_t> shift, rows;  // of a segment from the first: numbers, pixels

  explicit Plan(const Convolution& c)
      : c(c), inputs(c.inputs()), outputs(c.outputs / c.groups), room(micro::OCTET * micro::octets(outputs)),
        joined(c.groups == 1 && c.dilation[2] == 1), length(joined ? c.kernel[2] * inputs : inputs),
        segments(int(joined ? c.kernel[0] * c.kernel[1] : c.taps())), direct(outputs == room && !Epilogue::on(c)) {
    for (int64_t z = 0; z < c.kernel[0]; ++z)
      for (int64_t y = 0; y < c.kernel[1]; ++y)
        for (int64_t x = 0; x < (joined ? 1 : c.kernel[2]); ++x)
          rows.push_back((z * c.dilation[0] * c.size[1] + y * c.dilation[1]) * c.size[2] + x * c.dilation[2]);
    for (int64_t r : rows) shift.push_back(r * c.channels);
  }
};
inline float sum_valid(const float* v, int64_t count) {
  F sum = all(0.0f);
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) {
    const F x = load(v + k);
    sum = sum + where_nan(x, all(0.0f), x);
  }
  float rest = 0;
  for (; k < count; ++k) rest += v[k] == v[k] ? v[k] : 0.0f;
  return rest + total(sum);
}

struct Place {  // of a window: its first tap in the image, and its output
  int64_t start[3];
  int64_t output;
};
