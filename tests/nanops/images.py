"""Images with NaN for the tests of the neighbouring layers, and what every operator owes its input."""

import torch
from hypothesis import strategies as st

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FORMATS = {3: [torch.contiguous_format], 4: [torch.contiguous_format, torch.channels_last],
           5: [torch.contiguous_format, torch.channels_last_3d]}  # fmt: skip


def image(*shape, rate=0.0, seed=0, dtype=torch.float32, layout=torch.contiguous_format):
    """Return normal numbers of which a share is NaN; the numbers do not depend on the share."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g, dtype=torch.float64) * 2 + 1
    x[torch.rand(shape, generator=g) < rate] = torch.nan
    return x.to(dtype).contiguous(memory_format=layout)


@st.composite
def images(draw, channels=None):
    """Draw a float64 image (N, C, *size) with any share of NaN, whole samples of it too."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=(d := draw(st.integers(1, 3))), max_size=d))
    rate = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    samples, planes = draw(st.integers(1, 3)), channels or draw(st.integers(1, 4))
    return image(samples, planes, *sizes, rate=rate, seed=draw(st.integers(0, 99)), dtype=torch.float64)


def same_bits(a, b):
    """Whether two tensors have the same dtype and bits, where NaN equals NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | a.isnan() & b.isnan()).all())


def call_untouched(operator, x):
    """Return operator(x) after checking that it left x and torch's random numbers alone."""
    before, state = x.clone(), torch.get_rng_state()
    y = operator(x)
    assert same_bits(before, x) and torch.equal(state, torch.get_rng_state())
    return y


def gradients(operator, x, *parameters):
    """Return the gradients of a sum of squares that includes the NaNs of the output."""
    leaves = [t.detach().clone().requires_grad_() for t in (x, *parameters)]
    y = operator(*leaves)
    y.square().sum().backward()
    return [t.grad for t in leaves]


def gradcheck_valid(operator, x):
    """Check the gradient of the finite outputs with respect to the finite inputs, in float64."""
    valid = ~x.isnan()

    def on_valid(values):
        y = operator(torch.full_like(x, torch.nan).masked_scatter(valid, values))
        return y[y.isfinite()]

    return torch.autograd.gradcheck(on_valid, (x[valid].clone().requires_grad_(),))


def compiled(operator):
    """Return an operator as one graph without breaks."""
    torch._dynamo.reset()
    return torch.compile(operator, fullgraph=True, backend="aot_eager")
