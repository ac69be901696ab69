// Large fresh results in large pages: a page fault for each 4 KiB costs as much as a small convolution.
#pragma once
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>
#endif

// A hint, before the first write; where it is refused nothing changes.
inline void large_pages(void* p, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t PAGE = 1 << 21;
  const uintptr_t first = (uintptr_t(p) + PAGE - 1) / PAGE * PAGE, last = (uintptr_t(p) + uintptr_t(bytes)) / PAGE * PAGE;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)p, (void)bytes;
#endif
}
