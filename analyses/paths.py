"""Where do the committed results lie, and where the data that are no part of the repository?"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "analyses" / "results"
DATA = ROOT.parent / "shared" / "data"
