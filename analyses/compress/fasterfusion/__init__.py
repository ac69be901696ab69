"""FasterFusion: blocks are placed in a network, trained, and fused or folded; what that gives in parameters, work."""

from analyses.compress.fasterfusion.counting import parameters
from analyses.compress.fasterfusion.fusing import fold, fuse
from analyses.compress.fasterfusion.joint import pool_nans
from analyses.compress.fasterfusion.placing import place
from analyses.compress.fasterfusion.published import claims
from analyses.compress.fasterfusion.reloading import reload

__all__ = ["claims", "fold", "fuse", "parameters", "place", "pool_nans", "reload"]
