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
  int64_t* table;    // (COMBINATIONS, cells, bins)
  int64_t* kinds;    // (cells, 2, CLASSES)
  double* sums;      // (chunks, regions + 1)
};

namespace {

template <class T> T* at(T* values, int64_t begin) { return values ? values + begin : nullptr; }

Moments part(const Moments& m, int64_t begin) {
  return {at(m.offset, begin),  at(m.m2, begin),    at(m.minimum, begin), at(m.maximum, begin),
          m.reference + begin, at(m.zeros, begin), at(m.nans, begin),    at(m.infs, begin)};
}

// Write the cells of `length` elements, which repeat every `positions`.
void place(const uint8_t* cell, int64_t positions, int64_t begin, int64_t length, uint8_t* out) {
  for (int64_t done = 0; done < length;) {
    const int64_t from = (begin + done) % positions, count = std::min(length - done, positions - from);
    std::memcpy(out + done, cell + from, count);
    done += count;
  }
}

// The moments of a piece that nobody keeps.
struct Passing {
  double offset[PIECE], m2[PIECE];
  float minimum[PIECE], maximum[PIECE];
  int16_t nans[PIECE], infs[PIECE];
};

// What one thread works with.
class Worker {
  const Layer& layer;
  const Scores* scores;
  const Divisor* divisors;
  Passing passing;
  Room room;
  uint8_t cell[PIECE] = {};
  std::vector<int32_t> normal, general, kinds;
  Counts counts{};

  bool piece(int64_t begin, int64_t length, Sums& sums) {
    bool finite = true;
    Moments m = part(layer.moments, begin);
    if (layer.samples.blocks) {
      Passing& p = passing;
      if (!m.offset) m = {p.offset, p.m2, p.minimum, p.maximum, m.reference, nullptr, nullptr, nullptr};
      if (!m.nans) m.nans = p.nans, m.infs = p.infs;  // the scores need them, whether or not they are kept
      finite = reduce_piece(layer.samples, divisors, begin, length, m);
      if (finite) m.nans = m.infs = nullptr;
    }
    if (scores) {
      if (scores->cell) place(scores->cell, scores->positions, begin, length, cell);
      score_piece(scores->question, m, length, cell, scores->bits + begin, scores->codes + begin, counts, sums, room);
    }
    return finite;
  }

 public:
  Worker(const Layer& whole, const Scores* wanted, const Divisor* table)
      : layer(whole), scores(wanted), divisors(table) {
    if (!scores) return;
    const Question& q = scores->question;
    normal.resize(CENTRES * RELATIONS * q.cells * q.bins);
    general.resize(CENTRES * SPREAD * q.cells * q.pairs());
    kinds.resize(SPREAD * q.cells * 2 * CLASSES);
    counts = {normal.data(), general.data(), kinds.data()};
  }

  // Return whether all samples of the chunk are finite, as far as they were looked at.
  bool chunk(int64_t begin, int64_t length) {
    bool finite = true;
    Sums sums{};
    for (int64_t done = 0; done < length; done += PIECE)
      finite = piece(begin + done, std::min(PIECE, length - done), sums) && finite;
    if (scores) {
      const int64_t count = scores->question.regions + 1;
      for (int64_t r = 0; r < count; ++r) scores->sums[begin / CHUNK * count + r] = sums.total(r);
    }
    return finite;
  }

  void add_to(const Scores& s) const {
    const Question& q = s.question;
    const int64_t half = normal.size() / CENTRES, size = q.cells * q.bins;
    for (int64_t i = 0; i < half; ++i) {
      s.table[i] += normal[i];
      s.table[half + i] += normal[i] + normal[half + i];
    }
    for (size_t i = 0; i < kinds.size(); ++i) s.kinds[i % (kinds.size() / SPREAD)] += kinds[i];
    const int64_t pairs = q.pairs(), centre = SPREAD * q.cells * pairs;
    for (int64_t i = 0; i < centre; ++i) {
      const int64_t ieee = general[i], mean = ieee + general[centre + i];
      if (!ieee && !mean) continue;
      const int64_t pair = i % pairs, cell = i / pairs % q.cells;
      const int64_t score = pair / 2 - 1;  // absolute, from the lowest bin on
      const auto bin = [&](int64_t value) { return score < 0 ? 0 : std::min(value * q.per_bit, q.bins - 1); };
      int64_t* relative = s.table + CENTRES * RELATIONS * size + cell * q.bins + bin(score + pair % 2);
      int64_t* absolute = s.table + (CENTRES * RELATIONS + 1) * size + cell * q.bins + bin(score);
      relative[0] += ieee;
      absolute[0] += ieee;
      relative[RELATIONS * size] += mean;
      absolute[RELATIONS * size] += mean;
    }
  }
};

// Give the numbers what the other classes leave of the elements.
void count_numbers(const Layer& layer, const Scores& s) {
  std::vector<int64_t> rest(s.question.cells);
  if (s.cell)
    for (int64_t i = 0; i < s.positions; ++i) ++rest[s.cell[i]];
  else
    rest[0] = 1;
  for (int64_t c = 0; c < s.question.cells; ++c) {
    int64_t* kinds = s.kinds + c * 2 * CLASSES;
    rest[c] *= layer.elements / s.positions;
    for (int k = 1; k < 2 * CLASSES; ++k) rest[c] -= kinds[k];
    kinds[NUMBER] = rest[c];
  }
}

// Append the bits in [low, high) of numbers to the list of each region that has their cell.
void select(const double* bits, const uint8_t* codes, const uint8_t* cell, int64_t length, int64_t regions,
            const uint8_t* masks, const double* low, const double* high, std::vector<std::vector<double>>& found) {
  const double lowest = *std::min_element(low, low + regions), highest = *std::max_element(high, high + regions);
  double near[CHUNK + 1], kept[CHUNK + 1];
  uint8_t cells[CHUNK + 1];
  int64_t some = 0;
  const auto look = [&](int64_t i) {
    near[some] = bits[i];
    cells[some] = cell[i];
    some += (codes[i] == NUMBER) & (bits[i] >= lowest) & (bits[i] < highest);
  };
  int64_t i = 0;
  for (; i + WIDTH <= length; i += WIDTH) {
    const Doubles b = load<Doubles>(bits + i);
    if (any((b >= lowest) & (b < highest)))
      for (int64_t j = i; j < i + WIDTH; ++j) look(j);
  }
  for (; i < length; ++i) look(i);
  for (int64_t r = 0; r < regions; ++r) {
    int64_t count = 0;
    for (int64_t j = 0; j < some; ++j) {
      kept[count] = near[j];
      count += ((cells[j] & masks[r]) == masks[r]) & (near[j] >= low[r]) & (near[j] < high[r]);
    }
    found[r].insert(found[r].end(), kept, kept + count);
  }
}

std::vector<Divisor> divisors_of(const Samples& samples) {
  std::vector<Divisor> table;
  for (int64_t b = 0; b < samples.blocks; ++b)
    while (int64_t(table.size()) < samples.sizes[b]) table.emplace_back(int64_t(table.size()) + 1);
  return table;
}

}  // namespace

MCA_API int64_t mca_sweep_chunk() { return CHUNK; }

// Return 1 where all samples are finite, else 0. Where moments are written and 0 is returned, `nans` and `infs` are
// needed: without them call again.
MCA_API int32_t mca_sweep(const Layer* layer, const Scores* scores, int32_t threads) {
  const int64_t chunks = (layer->elements + CHUNK - 1) / CHUNK;
  const std::vector<Divisor> divisors = divisors_of(layer->samples);
  bool finite = true;
#pragma omp parallel num_threads(int(std::min<int64_t>(threads, (chunks + 3) / 4))) reduction(&& : finite)
  {
    OrdinaryArithmetic ordinary;
    const auto worker = std::make_unique<Worker>(*layer, scores, divisors.data());
#pragma omp for schedule(dynamic, 4) nowait
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t begin = c * CHUNK, length = std::min(CHUNK, layer->elements - begin);
      finite = worker->chunk(begin, length) && finite;
    }
    if (scores) {
#pragma omp critical(mca_sweep_counts)
      worker->add_to(*scores);
    }
  }
  if (scores) count_numbers(*layer, *scores);
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

// Write the bits of the numbers that lie in [low, high) of any of the regions to its `out`, which has place for `room`
// of them, and how many there are to `count`. Region r has the cells with all bits of masks[r].
MCA_API void mca_select(const double* bits, const uint8_t* codes, int64_t elements, const uint8_t* cell,
                        int64_t positions, int64_t regions, const uint8_t* masks, const double* low,
                        const double* high, const int64_t* room, double* const* out, int64_t* count) {
  std::vector<std::vector<double>> found(regions);
  uint8_t cells[CHUNK] = {};
  for (int64_t begin = 0; begin < elements; begin += CHUNK) {
    const int64_t length = std::min(CHUNK, elements - begin);
    if (cell) place(cell, positions, begin, length, cells);
    select(bits + begin, codes + begin, cells, length, regions, masks, low, high, found);
  }
  for (int64_t r = 0; r < regions; ++r) {
    count[r] = std::min<int64_t>(found[r].size(), room[r]);
    std::copy_n(found[r].begin(), count[r], out[r]);
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
