// Comparisons of sixteen lanes at once, and what is done where they hold. An ordered comparison is false at a NaN.
#pragma once
#include "simd.h"

// Greater of two where a NaN in `a` loses and equals keep `b`: maxps returns its second operand in both cases.
#if defined(__AVX512F__)

struct M { __mmask16 v; };
inline F greater(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline M equal(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline M less(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline M at_most(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline M at_most(U a, U b) { return {_mm512_cmple_epu32_mask(a.v, b.v)}; }
inline M set(U a) { return {_mm512_test_epi32_mask(a.v, a.v)}; }  // where a is not 0
inline M operator|(M a, M b) { return {__mmask16(a.v | b.v)}; }
inline M operator&(M a, M b) { return {__mmask16(a.v & b.v)}; }
inline M operator!(M a) { return {__mmask16(~a.v)}; }
inline M nowhere() { return {0}; }
inline bool any(M a) { return a.v != 0; }
inline F select(M m, F yes, F no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
inline U select(M m, U yes, U no) { return {_mm512_mask_blend_epi32(m.v, no.v, yes.v)}; }
inline U keep(M m, U a) { return {_mm512_maskz_mov_epi32(m.v, a.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F floats(U a) { return {_mm512_castsi512_ps(a.v)}; }
inline void store(int64_t* p, U a) {  // of numbers below 2^31
  _mm512_storeu_si512(p, _mm512_cvtepu32_epi64(_mm512_castsi512_si256(a.v)));
  _mm512_storeu_si512(p + 8, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(a.v, 1)));
}
inline void store(uint8_t* p, U a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a.v)); }
inline U load(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
inline void store(uint16_t* p, U a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(a.v)); }
inline U load(const uint16_t* p) { return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))}; }
// Lanes 0, 2, 4, ... and 1, 3, 5, ... of the 32 numbers a, b.
inline void part(F a, F b, F& even, F& odd) {
  const __m512i i = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  even.v = _mm512_permutex2var_ps(a.v, i, b.v);
  odd.v = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(i, _mm512_set1_epi32(1)), b.v);
}
inline void weave(F even, F odd, F& a, F& b) {  // its inverse
  const __m512i i = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  a.v = _mm512_permutex2var_ps(even.v, i, odd.v);
  b.v = _mm512_permutex2var_ps(even.v, _mm512_add_epi32(i, _mm512_set1_epi32(8)), odd.v);
}

#else

struct M { __m256 v, w; };
inline F greater(F a, F b) { return {_mm256_max_ps(a.v, b.v), _mm256_max_ps(a.w, b.w)}; }
inline M equal(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ), _mm256_cmp_ps(a.w, b.w, _CMP_EQ_OQ)}; }
inline M less(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ), _mm256_cmp_ps(a.w, b.w, _CMP_LT_OQ)}; }
inline M at_most(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ), _mm256_cmp_ps(a.w, b.w, _CMP_LE_OQ)}; }
inline M mask(__m256i v, __m256i w) { return {_mm256_castsi256_ps(v), _mm256_castsi256_ps(w)}; }
inline M at_most(U a, U b) {
  return mask(_mm256_cmpeq_epi32(_mm256_min_epu32(a.v, b.v), a.v), _mm256_cmpeq_epi32(_mm256_min_epu32(a.w, b.w), a.w));
}
inline M operator|(M a, M b) { return {_mm256_or_ps(a.v, b.v), _mm256_or_ps(a.w, b.w)}; }
inline M operator&(M a, M b) { return {_mm256_and_ps(a.v, b.v), _mm256_and_ps(a.w, b.w)}; }
inline M operator!(M a) {
  const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  return {_mm256_andnot_ps(a.v, ones), _mm256_andnot_ps(a.w, ones)};
}
inline M set(U a) {
  const __m256i zero = _mm256_setzero_si256();
  return !mask(_mm256_cmpeq_epi32(a.v, zero), _mm256_cmpeq_epi32(a.w, zero));
}
inline M nowhere() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline bool any(M a) { return _mm256_movemask_ps(_mm256_or_ps(a.v, a.w)) != 0; }
inline F select(M m, F yes, F no) { return {_mm256_blendv_ps(no.v, yes.v, m.v), _mm256_blendv_ps(no.w, yes.w, m.w)}; }
inline U select(M m, U yes, U no) {
  return {_mm256_blendv_epi8(no.v, yes.v, _mm256_castps_si256(m.v)),
          _mm256_blendv_epi8(no.w, yes.w, _mm256_castps_si256(m.w))};
}
inline U keep(M m, U a) {
  return {_mm256_and_si256(_mm256_castps_si256(m.v), a.v), _mm256_and_si256(_mm256_castps_si256(m.w), a.w)};
}
inline F operator-(F a, F b) { return {_mm256_sub_ps(a.v, b.v), _mm256_sub_ps(a.w, b.w)}; }
inline F floats(U a) { return {_mm256_castsi256_ps(a.v), _mm256_castsi256_ps(a.w)}; }
inline void store(int64_t* p, U a) {
  const auto wide = [](int64_t* q, __m128i e) { _mm256_storeu_si256((__m256i*)q, _mm256_cvtepu32_epi64(e)); };
  wide(p, _mm256_castsi256_si128(a.v));
  wide(p + 4, _mm256_extracti128_si256(a.v, 1));
  wide(p + 8, _mm256_castsi256_si128(a.w));
  wide(p + 12, _mm256_extracti128_si256(a.w, 1));
}
inline __m256i narrow(U a) {  // to 16 bits, of numbers below 2^16
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(a.v, a.w), 0xD8);
}
inline void store(uint16_t* p, U a) { _mm256_storeu_si256((__m256i*)p, narrow(a)); }
inline void store(uint8_t* p, U a) {
  const __m256i n = narrow(a);
  _mm_storeu_si128((__m128i*)p, _mm_packus_epi16(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1)));
}
inline U load(const uint8_t* p) {
  const __m128i b = _mm_loadu_si128((const __m128i*)p);
  return {_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_srli_si128(b, 8))};
}
inline U load(const uint16_t* p) {
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
inline __m256 in_order(__m256 a) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xD8)); }
inline void part(F a, F b, F& even, F& odd) {
  even = {in_order(_mm256_shuffle_ps(a.v, a.w, 0x88)), in_order(_mm256_shuffle_ps(b.v, b.w, 0x88))};
  odd = {in_order(_mm256_shuffle_ps(a.v, a.w, 0xDD)), in_order(_mm256_shuffle_ps(b.v, b.w, 0xDD))};
}
inline void weave(__m256 even, __m256 odd, F& a) {
  const __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
  a = {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
}
inline void weave(F even, F odd, F& a, F& b) {
  weave(even.v, odd.v, a);
  weave(even.w, odd.w, b);
}

#endif
