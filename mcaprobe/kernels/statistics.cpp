// The sweep over a float32 layer: samples to moments, moments to scores, chunk by chunk. Called from sweep.py.
#include "statistics.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "abi.h"

using namespace statistics;

// As in sweep.py, field by field.
struct Layer {
  int64_t elements;
  Samples samples;  // blocks = 0: the moments are given
  Moments moments;  // given, or to be written where `offset` is not null
};

struct Scores {
  Question question;
  const uint8_t* cell;  // of each position, which every `positions` elements share in turn; null: 0
  int64_t positions;
  double* bits;      // (elements)
  uint8_t* codes;    // (elements)
  int64_t* table;    // (COMBINATIONS, cells + 1, bins), or null: no histogram
  int64_t* ranks;    // (cells + 1, rank_bins)
  int64_t* kinds;    // (cells, 2, CLASSES)
  double* sums;      // (chunks, regions + 1)
};

namespace {

template <class T> T* at(T* values, int64_t begin) { return values ? values + begin : nullptr; }

Moments part(const Moments& m, int64_t begin) {
  return {at(m.offset, begin),  at(m.m2, begin),    at(m.minimum, begin), at(m.maximum, begin),
          m.reference + begin, at(m.zeros, begin), at(m.nans, begin),    at(m.infs, begin)};
}

// The moments of a chunk that nobody keeps.
struct Passing {
  double offset[CHUNK], m2[CHUNK];
  float minimum[CHUNK], maximum[CHUNK];
  int16_t nans[CHUNK], infs[CHUNK];
};

// What one thread works with.
struct Worker {
  std::unique_ptr<Passing> passing{new Passing};
  std::unique_ptr<Room> room{new Room};
  std::vector<uint8_t> cell = std::vector<uint8_t>(CHUNK, 0);
  std::vector<int32_t> table, ranks;
  std::vector<int64_t> kinds;
  Counts counts{};

  void prepare(const Scores& s) {
    const Question& q = s.question;
    if (s.table) table.assign(COMBINATIONS * (q.cells + 1) * q.bins, 0);
    ranks.assign((q.cells + 1) * q.rank_bins, 0);
    kinds.assign(q.cells * 2 * CLASSES, 0);
    counts = {s.table ? table.data() : nullptr, ranks.data(), kinds.data()};
  }

  void place_cells(const Scores& s, int64_t begin, int64_t length) {
    if (!s.cell) return;
    for (int64_t done = 0; done < length;) {
      const int64_t from = (begin + done) % s.positions;
      const int64_t count = std::min(length - done, s.positions - from);
      std::memcpy(cell.data() + done, s.cell + from, count);
      done += count;
    }
  }

  void add_to(const Scores& s) const {
    for (size_t i = 0; i < table.size(); ++i) s.table[i] += table[i];
    for (size_t i = 0; i < ranks.size(); ++i) s.ranks[i] += ranks[i];
    for (size_t i = 0; i < kinds.size(); ++i) s.kinds[i] += kinds[i];
  }
};

// Return whether all samples of the chunk are finite, as far as they were looked at.
bool sweep_chunk(const Layer& layer, const Scores* scores, int64_t begin, int64_t length, Worker& w) {
  bool finite = true;
  Moments m = part(layer.moments, begin);
  if (layer.samples.blocks) {
    Passing& p = *w.passing;
    if (!m.offset) m = {p.offset, p.m2, p.minimum, p.maximum, m.reference, nullptr, nullptr, nullptr};
    if (!m.nans) m.nans = p.nans, m.infs = p.infs;  // the scores need them, whether or not they are kept
    finite = reduce_chunk(layer.samples, begin, length, m);
    if (finite) m.nans = m.infs = nullptr;
  }
  if (scores) {
    w.place_cells(*scores, begin, length);
    score_chunk(scores->question, m, length, w.cell.data(), scores->bits + begin, scores->codes + begin, w.counts,
                scores->sums + begin / CHUNK * (scores->question.regions + 1), *w.room);
  }
  return finite;
}

}  // namespace

MCA_API int64_t mca_sweep_chunk() { return CHUNK; }

// Return 1 where all samples are finite, else 0. Where moments are written and 0 is returned, `nans` and `infs` are
// needed: without them call again.
MCA_API int32_t mca_sweep(const Layer* layer, const Scores* scores, int32_t threads) {
  const int64_t chunks = (layer->elements + CHUNK - 1) / CHUNK;
  bool finite = true;
#pragma omp parallel num_threads(threads) reduction(&& : finite)
  {
    OrdinaryArithmetic ordinary;
    Worker worker;
    if (scores) worker.prepare(*scores);
#pragma omp for schedule(static)
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t begin = c * CHUNK, length = std::min(CHUNK, layer->elements - begin);
      finite = sweep_chunk(*layer, scores, begin, length, worker) && finite;
    }
    if (scores) {
#pragma omp critical(mca_sweep_counts)
      worker.add_to(*scores);
    }
  }
  return finite;
}

// Chan's merge of block b into a, which have `count_a` and `count_b` finite samples in each element.
MCA_API void mca_merge(const Moments* a, const Moments* b, int64_t elements, double count_a, double count_b) {
  OrdinaryArithmetic ordinary;
  const double total = count_a + count_b, share = count_b / total, weight = count_a * count_b / total;
  const Moments mine = *a, theirs = *b;
#pragma omp simd
  for (int64_t i = 0; i < elements; ++i) {
    const double distance = theirs.offset[i] - mine.offset[i], squared = distance * distance * weight;
    mine.offset[i] += distance * share;
    mine.m2[i] = (mine.m2[i] + theirs.m2[i]) + squared;
    mine.minimum[i] = theirs.minimum[i] < mine.minimum[i] ? theirs.minimum[i] : mine.minimum[i];
    mine.maximum[i] = theirs.maximum[i] > mine.maximum[i] ? theirs.maximum[i] : mine.maximum[i];
    mine.zeros[i] += theirs.zeros[i];
  }
}

// Write the bits of the numbers that lie in [low, high) of any of the regions to its `out`, which has place for them;
// region r has the cells with all bits of masks[r].
MCA_API void mca_select(const double* bits, const uint8_t* codes, int64_t elements, const uint8_t* cell,
                        int64_t positions, int64_t regions, const uint8_t* masks, const double* low,
                        const double* high, double* const* out) {
  double lowest = low[0], highest = high[0];
  for (int64_t r = 1; r < regions; ++r) {
    lowest = std::min(lowest, low[r]);
    highest = std::max(highest, high[r]);
  }
  std::vector<double*> next(out, out + regions);
  for (int64_t i = 0; i < elements;) {
    if (i + WIDTH <= elements) {
      const Doubles b = load<Doubles>(bits + i);
      if (!any((b >= lowest) & (b < highest))) {
        i += WIDTH;
        continue;
      }
    }
    const int64_t stop = std::min(i + WIDTH, elements);
    for (; i < stop; ++i) {
      if (codes[i] != NUMBER) continue;
      const uint8_t here = cell ? cell[i % positions] : 0;
      for (int64_t r = 0; r < regions; ++r)
        if ((here & masks[r]) == masks[r] && bits[i] >= low[r] && bits[i] < high[r]) *next[r]++ = bits[i];
    }
  }
}

// Welford's step with one more finite sample, the n-th. Return 0, and change nothing, where it is not finite.
MCA_API int32_t mca_update(const Moments* m, const float* sample, int64_t elements, int64_t n) {
  OrdinaryArithmetic ordinary;
  if (!all_finite(sample, elements)) return 0;
  double *offset = m->offset, *m2 = m->m2;
  float *minimum = m->minimum, *maximum = m->maximum;
  int16_t* zeros = m->zeros;
  const double count = double(n);
#pragma omp simd
  for (int64_t i = 0; i < elements; ++i) {
    const float x = sample[i];
    const double distance = double(x) - offset[i], mean = offset[i] + distance / count;
    offset[i] = mean;
    m2[i] += distance * (double(x) - mean);
    minimum[i] = x < minimum[i] ? x : minimum[i];
    maximum[i] = x > maximum[i] ? x : maximum[i];
    zeros[i] += x == 0.0f;
  }
  return 1;
}
