// Sixteen floats or integers, and a register of doubles, on AVX-512 and on AVX2. The same operations, hence the same bits.
#pragma once
#include <immintrin.h>

#include <cstdint>

#if defined(__AVX512F__)

struct F { __m512 v; };
struct U { __m512i v; };
struct D { __m512d v; static constexpr int width = 8; };

inline F load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline void stream(float* p, F a) { _mm512_stream_ps(p, a.v); }  // past the caches; p at a multiple of 64 bytes
inline F all(float a) { return {_mm512_set1_ps(a)}; }
inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F root(F a) { return {_mm512_sqrt_ps(a.v)}; }
inline F flip(F a, U s) { return {_mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a.v), s.v))}; }
inline F flip(F a, U s, U t) {
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(a.v), s.v, t.v, 0x96))};
}
inline F where_zero(F test, F yes, F no) {  // yes where test is 0 (of either sign)
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(test.v, _mm512_setzero_ps(), _CMP_EQ_OQ), no.v, yes.v)};
}
inline F where_positive(F test, F yes, F no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(test.v, _mm512_setzero_ps(), _CMP_GT_OQ), no.v, yes.v)};
}
inline F where_less(F a, F b, F yes, F no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
inline F where_nan(F test, F yes, F no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(test.v, test.v, _CMP_UNORD_Q), no.v, yes.v)};
}
inline int count_nan(F a) { return __builtin_popcount(_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)); }
inline bool either_nan(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_UNORD_Q); }
inline float total(F a) {  // in the same order on every processor
  const __m256 v = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 u = _mm_add_ps(w, _mm_movehl_ps(w, w));
  return _mm_cvtss_f32(_mm_add_ss(u, _mm_shuffle_ps(u, u, 1)));
}
inline U load(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store(uint32_t* p, U a) { _mm512_storeu_si512(p, a.v); }
inline U all(uint32_t a) { return {_mm512_set1_epi32(int(a))}; }
inline U lanes() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }
inline U operator+(U a, U b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline U operator-(U a, U b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline U operator^(U a, U b) { return {_mm512_xor_si512(a.v, b.v)}; }
inline U operator|(U a, U b) { return {_mm512_or_si512(a.v, b.v)}; }
inline U operator&(U a, U b) { return {_mm512_and_si512(a.v, b.v)}; }
inline U operator<<(U a, int n) { return {_mm512_sll_epi32(a.v, _mm_cvtsi32_si128(n))}; }
inline U operator>>(U a, int n) { return {_mm512_srl_epi32(a.v, _mm_cvtsi32_si128(n))}; }
inline F choose(U mask, F yes, F no) {  // bit by bit
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(mask.v, _mm512_castps_si512(yes.v), _mm512_castps_si512(no.v), 0xCA))};
}
inline U lower(U a, U b) { return {_mm512_min_epu32(a.v, b.v)}; }
inline U upper(U a, U b) { return {_mm512_max_epu32(a.v, b.v)}; }
inline U bits(F a) { return {_mm512_castps_si512(a.v)}; }
inline void multiply(U a, uint32_t b, U& high, U& low) {
  const __m512i m = _mm512_set1_epi32(int(b));
  const __m512i even = _mm512_mul_epu32(a.v, m), odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), m);
  low.v = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
  high.v = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
}
inline void store_quarters(float* p, int64_t stride, F a) {  // lanes 4 q .. 4 q + 3 to p + q stride
  _mm_storeu_ps(p, _mm512_extractf32x4_ps(a.v, 0));
  _mm_storeu_ps(p + stride, _mm512_extractf32x4_ps(a.v, 1));
  _mm_storeu_ps(p + 2 * stride, _mm512_extractf32x4_ps(a.v, 2));
  _mm_storeu_ps(p + 3 * stride, _mm512_extractf32x4_ps(a.v, 3));
}

inline D all(double a) { return {_mm512_set1_pd(a)}; }
inline D load(const double* p) { return {_mm512_loadu_pd(p)}; }
inline void store(double* p, D a) { _mm512_storeu_pd(p, a.v); }
inline D widen(const float* p) { return {_mm512_cvtps_pd(_mm256_loadu_ps(p))}; }
inline void narrow(float* p, D a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a.v)); }
inline D operator+(D a, D b) { return {_mm512_add_pd(a.v, b.v)}; }
inline D operator-(D a, D b) { return {_mm512_sub_pd(a.v, b.v)}; }
inline D operator*(D a, D b) { return {_mm512_mul_pd(a.v, b.v)}; }
inline D operator/(D a, D b) { return {_mm512_div_pd(a.v, b.v)}; }
inline D fma(D a, D b, D c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
inline D root(D a) { return {_mm512_sqrt_pd(a.v)}; }
struct W { __m512i v; };  // the 64-bit integers beside D
inline W widen(const uint32_t* p) { return {_mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i*)p))}; }
inline W all(uint64_t a) { return {_mm512_set1_epi64(int64_t(a))}; }
inline W operator^(W a, W b) { return {_mm512_xor_si512(a.v, b.v)}; }
inline W operator+(W a, W b) { return {_mm512_add_epi64(a.v, b.v)}; }
inline W operator&(W a, W b) { return {_mm512_and_si512(a.v, b.v)}; }
inline W operator|(W a, W b) { return {_mm512_or_si512(a.v, b.v)}; }
inline W highest(W a) { return {_mm512_srli_epi64(a.v, 52)}; }  // sign and exponent of a double
inline W raised(W a) { return {_mm512_slli_epi64(a.v, 32)}; }  // the low half to the high one
inline W bits(D a) { return {_mm512_castpd_si512(a.v)}; }
inline D number(W a) { return {_mm512_castsi512_pd(a.v)}; }
inline D floating(W a) { return {_mm512_cvtepi64_pd(a.v)}; }  // of integers below 2^51
inline D floor(D a) { return {_mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline D where_less(D a, D b, D yes, D no) {
  return {_mm512_mask_blend_pd(_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}

#else

struct F { __m256 v, w; };
struct U { __m256i v, w; };
struct D { __m256d v; static constexpr int width = 4; };

inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F a) { _mm256_storeu_ps(p, a.v); _mm256_storeu_ps(p + 8, a.w); }
inline void stream(float* p, F a) { _mm256_stream_ps(p, a.v); _mm256_stream_ps(p + 8, a.w); }
inline F all(float a) { return {_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
inline F operator+(F a, F b) { return {_mm256_add_ps(a.v, b.v), _mm256_add_ps(a.w, b.w)}; }
inline F operator*(F a, F b) { return {_mm256_mul_ps(a.v, b.v), _mm256_mul_ps(a.w, b.w)}; }
inline F operator/(F a, F b) { return {_mm256_div_ps(a.v, b.v), _mm256_div_ps(a.w, b.w)}; }
inline F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.v, b.v, c.v), _mm256_fmadd_ps(a.w, b.w, c.w)}; }
inline F root(F a) { return {_mm256_sqrt_ps(a.v), _mm256_sqrt_ps(a.w)}; }
inline F flip(F a, U s) {
  return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(s.v)), _mm256_xor_ps(a.w, _mm256_castsi256_ps(s.w))};
}
inline F flip(F a, U s, U t) { return flip(flip(a, s), t); }
inline F where_zero(F test, F yes, F no) {
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(test.v, zero, _CMP_EQ_OQ)),
          _mm256_blendv_ps(no.w, yes.w, _mm256_cmp_ps(test.w, zero, _CMP_EQ_OQ))};
}
inline F where_positive(F test, F yes, F no) {
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(test.v, zero, _CMP_GT_OQ)),
          _mm256_blendv_ps(no.w, yes.w, _mm256_cmp_ps(test.w, zero, _CMP_GT_OQ))};
}
inline F where_less(F a, F b, F yes, F no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.w, yes.w, _mm256_cmp_ps(a.w, b.w, _CMP_LT_OQ))};
}
inline F where_nan(F test, F yes, F no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(test.v, test.v, _CMP_UNORD_Q)),
          _mm256_blendv_ps(no.w, yes.w, _mm256_cmp_ps(test.w, test.w, _CMP_UNORD_Q))};
}
inline int count_nan(F a) {
  return __builtin_popcount(_mm256_movemask_ps(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))) +
         __builtin_popcount(_mm256_movemask_ps(_mm256_cmp_ps(a.w, a.w, _CMP_UNORD_Q)));
}
inline bool either_nan(F a, F b) {
  return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(a.v, b.v, _CMP_UNORD_Q), _mm256_cmp_ps(a.w, b.w, _CMP_UNORD_Q)));
}
inline float total(F a) {
  const __m256 v = _mm256_add_ps(a.v, a.w);
  const __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 u = _mm_add_ps(w, _mm_movehl_ps(w, w));
  return _mm_cvtss_f32(_mm_add_ss(u, _mm_shuffle_ps(u, u, 1)));
}
inline U load(const uint32_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 8))};
}
inline void store(uint32_t* p, U a) {
  _mm256_storeu_si256((__m256i*)p, a.v);
  _mm256_storeu_si256((__m256i*)(p + 8), a.w);
}
inline U all(uint32_t a) { return {_mm256_set1_epi32(int(a)), _mm256_set1_epi32(int(a))}; }
inline U lanes() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)}; }
inline U operator+(U a, U b) { return {_mm256_add_epi32(a.v, b.v), _mm256_add_epi32(a.w, b.w)}; }
inline U operator-(U a, U b) { return {_mm256_sub_epi32(a.v, b.v), _mm256_sub_epi32(a.w, b.w)}; }
inline U operator^(U a, U b) { return {_mm256_xor_si256(a.v, b.v), _mm256_xor_si256(a.w, b.w)}; }
inline U operator|(U a, U b) { return {_mm256_or_si256(a.v, b.v), _mm256_or_si256(a.w, b.w)}; }
inline U operator&(U a, U b) { return {_mm256_and_si256(a.v, b.v), _mm256_and_si256(a.w, b.w)}; }
inline U operator<<(U a, int n) {
  const __m128i s = _mm_cvtsi32_si128(n);
  return {_mm256_sll_epi32(a.v, s), _mm256_sll_epi32(a.w, s)};
}
inline U operator>>(U a, int n) {
  const __m128i s = _mm_cvtsi32_si128(n);
  return {_mm256_srl_epi32(a.v, s), _mm256_srl_epi32(a.w, s)};
}
inline F choose(U mask, F yes, F no) {
  const __m256 v = _mm256_castsi256_ps(mask.v), w = _mm256_castsi256_ps(mask.w);
  return {_mm256_or_ps(_mm256_and_ps(v, yes.v), _mm256_andnot_ps(v, no.v)),
          _mm256_or_ps(_mm256_and_ps(w, yes.w), _mm256_andnot_ps(w, no.w))};
}
inline U lower(U a, U b) { return {_mm256_min_epu32(a.v, b.v), _mm256_min_epu32(a.w, b.w)}; }
inline U upper(U a, U b) { return {_mm256_max_epu32(a.v, b.v), _mm256_max_epu32(a.w, b.w)}; }
inline U bits(F a) { return {_mm256_castps_si256(a.v), _mm256_castps_si256(a.w)}; }
inline void multiply(__m256i a, __m256i m, __m256i& high, __m256i& low) {
  const __m256i even = _mm256_mul_epu32(a, m), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}
inline void multiply(U a, uint32_t b, U& high, U& low) {
  const __m256i m = _mm256_set1_epi32(int(b));
  multiply(a.v, m, high.v, low.v);
  multiply(a.w, m, high.w, low.w);
}
inline void store_quarters(float* p, int64_t stride, F a) {
  _mm_storeu_ps(p, _mm256_castps256_ps128(a.v));
  _mm_storeu_ps(p + stride, _mm256_extractf128_ps(a.v, 1));
  _mm_storeu_ps(p + 2 * stride, _mm256_castps256_ps128(a.w));
  _mm_storeu_ps(p + 3 * stride, _mm256_extractf128_ps(a.w, 1));
}

inline D all(double a) { return {_mm256_set1_pd(a)}; }
inline D load(const double* p) { return {_mm256_loadu_pd(p)}; }
inline void store(double* p, D a) { _mm256_storeu_pd(p, a.v); }
inline D widen(const float* p) { return {_mm256_cvtps_pd(_mm_loadu_ps(p))}; }
inline void narrow(float* p, D a) { _mm_storeu_ps(p, _mm256_cvtpd_ps(a.v)); }
inline D operator+(D a, D b) { return {_mm256_add_pd(a.v, b.v)}; }
inline D operator-(D a, D b) { return {_mm256_sub_pd(a.v, b.v)}; }
inline D operator*(D a, D b) { return {_mm256_mul_pd(a.v, b.v)}; }
inline D operator/(D a, D b) { return {_mm256_div_pd(a.v, b.v)}; }
inline D fma(D a, D b, D c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
inline D root(D a) { return {_mm256_sqrt_pd(a.v)}; }
struct W { __m256i v; };
inline W widen(const uint32_t* p) { return {_mm256_cvtepu32_epi64(_mm_loadu_si128((const __m128i*)p))}; }
inline W all(uint64_t a) { return {_mm256_set1_epi64x(int64_t(a))}; }
inline W operator^(W a, W b) { return {_mm256_xor_si256(a.v, b.v)}; }
inline W operator+(W a, W b) { return {_mm256_add_epi64(a.v, b.v)}; }
inline W operator&(W a, W b) { return {_mm256_and_si256(a.v, b.v)}; }
inline W operator|(W a, W b) { return {_mm256_or_si256(a.v, b.v)}; }
inline W highest(W a) { return {_mm256_srli_epi64(a.v, 52)}; }
inline W raised(W a) { return {_mm256_slli_epi64(a.v, 32)}; }
inline W bits(D a) { return {_mm256_castpd_si256(a.v)}; }
inline D number(W a) { return {_mm256_castsi256_pd(a.v)}; }
inline D floating(W a) {  // of integers below 2^51: their bits behind those of 2^52
  const __m256d offset = _mm256_set1_pd(0x1p52);
  return {_mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(a.v, _mm256_castpd_si256(offset))), offset)};
}
inline D floor(D a) { return {_mm256_round_pd(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline D where_less(D a, D b, D yes, D no) {
  return {_mm256_blendv_pd(no.v, yes.v, _mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ))};
}

#endif
