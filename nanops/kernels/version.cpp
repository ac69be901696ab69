#include "abi.h"

NAN_API int64_t nan_version() { return NAN_VERSION; }
