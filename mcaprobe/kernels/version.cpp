// Which version of the interface is this?
#include "abi.h"

MCA_API int32_t mca_version() { return MCA_VERSION; }
