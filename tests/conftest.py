"""How hypothesis runs: the same examples in every run where CI is set, so that a change is to blame for a failure."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
