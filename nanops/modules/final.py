"""The layer before the head or the argmax: it replaces NaN and remembers how many there were."""

from torch import Tensor, nn

from nanops.functional.final import expect_policy, finalize


class Finalize(nn.Module):
    """Replace NaN by a stated policy; `count` is then the number of NaNs in each sample of the last call, int64 (N,).

    Args:
        policy: "zero", "background" or "keep", see `finalize`.
        background: The class for "background".
    Raises:
        InputError: another policy, or a class below 0.
    """

    count: Tensor | None

    def __init__(self, policy: str = "zero", *, background: int = 0) -> None:
        super().__init__()
        expect_policy(policy, background)
        self.policy, self.background = policy, background
        self.count = None

    def forward(self, input: Tensor) -> Tensor:
        """Return x, (N, ...), without NaN."""
        y, self.count = finalize(input, self.policy, background=self.background)
        return y

    def extra_repr(self) -> str:
        """Return the policy, and the class where it matters."""
        return f"policy={self.policy!r}" + (f", background={self.background}" if self.policy == "background" else "")
