"""Which trainings are compared? One on synthetic heads, in minutes; one on labelled brains, in hours."""

from analyses.experiments.comparison.networks import Learning
from analyses.experiments.comparison.tasks.brains import BrainStacks
from analyses.experiments.comparison.tasks.heads import SyntheticHeads
from analyses.training.budget import Budget

LEARNINGS = {
    "heads": Learning(SyntheticHeads(), Budget(steps=300)),
    "brains": Learning(
        BrainStacks(), Budget(steps=2000, learning_rate=5e-3, autocast=True), features=(16, 32, 64, 128), constant=24
    ),
}
