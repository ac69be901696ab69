"""How hypothesis runs: the same examples in every run where CI is set, so that a change is to blame for a failure.

Threads that wait sleep: on processors shared by several test processes they would spin for most of the time. No bit
depends on it; it has to be said before torch is imported.
"""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, print_blob=True)
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if os.environ.get("CI"):
    settings.load_profile("ci")
