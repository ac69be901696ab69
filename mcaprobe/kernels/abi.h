// What crosses the border of the library: plain C functions, pointers and integers.
#pragma once
#include <cstdint>

#define MCA_API extern "C" __attribute__((visibility("default")))
#define MCA_VERSION 1
