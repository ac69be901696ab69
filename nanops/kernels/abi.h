// What crosses the border of the library: plain C functions, pointers and integers.
#pragma once
#include <cstdint>

#define NAN_API extern "C" __attribute__((visibility("default")))
#define NAN_VERSION 3
