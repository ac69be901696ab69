"""Where do the committed results lie, where the data that are no part of the repository, and what is made of them?"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
DATA = ROOT.parent / "shared" / "data"
CACHE = ROOT / "cache"  # networks trained on data that may not be passed on: made by a command, never committed
