/* A stand-in for Verrou's switches, for tests: NOT Verrou. While it is on, the processor rounds all results in one
   direction, by a hash of the seed and of how often it was switched on; one operation is counted for each time. */
#include <fenv.h>
#include <stdlib.h>
#include <string.h>

static unsigned count, calls;

static int set(const char *name, const char *value) {
  const char *found = getenv(name);
  return found && !strcmp(found, value);
}

void c_verrou_start_soft_instrumentation(void) {
  const char *seed = getenv("STANDIN_SEED");
  unsigned h = seed ? (unsigned)strtoul(seed, 0, 10) : 0;
  if (!set("STANDIN_COUNT", "none")) count++;
  if (set("STANDIN_MODE", "nearest")) return;
  h += 2654435761u * ++calls;
  h ^= h >> 15; h *= 2246822519u; h ^= h >> 13; h *= 3266489917u; h ^= h >> 16;
  static const int ways[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO, FE_TONEAREST};
  fesetround(ways[h & 3]);
}

void c_verrou_stop_soft_instrumentation(void) { fesetround(FE_TONEAREST); }

unsigned c_verrou_count_fp_instrumented(void) { return count; }
