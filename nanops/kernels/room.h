// Memory for one call, at the start of a line of the cache.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

template <typename T>
class Room {
 public:
  explicit Room(int64_t count)
      : all_(static_cast<T*>(std::aligned_alloc(64, (size_t(count) * sizeof(T) + 63) / 64 * 64)), std::free) {
    if (count && !all_) throw std::bad_alloc();
  }
  T* begin() const { return all_.get(); }

 private:
  std::unique_ptr<T, decltype(&std::free)> all_;
};
