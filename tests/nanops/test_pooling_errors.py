"""What pooling and unpooling refuse: one sentence with what was expected and what arrived."""

import re

import pytest
import torch

from nanops.errors import InputError
from nanops.functional import pooling as p
from nanops.functional import unpooling as u

X = torch.zeros(1, 2, 6, 6)
V, T = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
CASES = {
    "shape": (lambda: p.multi_max_pool2d(torch.zeros(6, 6), 2),
              "Expected x of shape (N, C, H, W) or (C, H, W), with only N zero, got (6, 6)."),
    "shape-1d": (lambda: p.multi_max_pool1d(X, 2), "Expected x of shape (N, C, L) or (C, L), with only N zero, "
                 "got (1, 2, 6, 6)."),
    "shape-3d": (lambda: p.multi_max_pool3d(X[0], 2), "Expected x of shape (N, C, D, H, W) or (C, D, H, W), with only "
                 "N zero, got (2, 6, 6)."),
    "empty": (lambda: p.multi_max_pool2d(torch.zeros(1, 0, 6, 6), 2), "Expected x of shape (N, C, H, W) or (C, H, W), "
              "with only N zero, got (1, 0, 6, 6)."),
    "dtype": (lambda: p.aggressive_max_pool2d(X.int(), 2),
              "Expected x in float16, bfloat16, float32 or float64, got torch.int32."),
    "kernel": (lambda: p.aggressive_max_pool2d(X, (2, 2, 2)),
               "Expected kernel_size to be one integer or 2, each at least 1, got (2, 2, 2)."),
    "kernel-zero": (lambda: p.multi_max_pool2d(X, 0),
                    "Expected kernel_size to be one integer or 2, each at least 1, got 0."),
    "stride": (lambda: p.multi_max_pool2d(X, 2, 0), "Expected stride to be one integer or 2, each at least 1, got 0."),
    "dilation": (lambda: p.multi_max_pool2d(X, 2, dilation=0),
                 "Expected dilation to be one integer or 2, each at least 1, got 0."),
    "padding": (lambda: p.multi_max_pool2d(X, 3, 1, 2),
                "Expected padding of at most half the kernel (3, 3), got (2, 2)."),
    "padding-negative": (lambda: p.multi_max_pool2d(X, 3, 1, -1),
                         "Expected padding to be one integer or 2, each at least 0, got -1."),
    "small": (lambda: p.hybrid_max_pool2d(X, 7), "Expected an image of at least (7, 7) after padding, got (6, 6)."),
    "taps": (lambda: p.multi_max_pool2d(torch.zeros(1, 1, 9, 9), 9),
             "Expected a kernel of at most 64 taps, whose ties fit into one integer, got 81."),
    "max_ties": (lambda: p.aggressive_max_pool2d(X, 2, max_ties=0),
                 "Expected max_ties to be an integer of at least 1, got 0."),
    "tolerance": (lambda: p.multi_max_pool2d(X, 2, tolerance=1e-7),
                  "Expected tolerance to be a nanops.tolerance.Tolerance, got 1e-07."),
    "ties-shape": (lambda: u.conservative_max_unpool2d(V, T[..., :2], 2),
                   "Expected ties of shape (1, 2, 3, 3) in torch.uint8 on cpu, as the values, "
                   "got (1, 2, 3, 2) in torch.uint8 on cpu."),
    "ties-dtype": (lambda: u.conservative_max_unpool2d(V, T, 3),
                   "Expected ties of shape (1, 2, 3, 3) in torch.int16 on cpu, as the values, "
                   "got (1, 2, 3, 3) in torch.uint8 on cpu."),
    "values": (lambda: u.conservative_max_unpool2d(V[0, 0], T[0, 0], 2),
               "Expected values of shape (N, C, H, W) or (C, H, W), with only N zero, got (3, 3)."),
    "values-dtype": (lambda: u.conservative_max_unpool2d(V.long(), T, 2),
                     "Expected values in float16, bfloat16, float32 or float64, got torch.int64."),
    "overlap": (lambda: u.conservative_max_unpool2d(V, T, 2, overlap="values"),
                "Expected overlap to be nan or value, got 'values'; did you mean 'value'?"),
    "output_size": (lambda: u.conservative_max_unpool2d(V, T, 2, output_size=(6, 8)),
                    "Expected an output_size that pools to (3, 3) windows, got (6, 8)."),
    "output_size-batch": (lambda: u.conservative_max_unpool2d(V, T, 2, output_size=(2, 2, 6, 6)),
                          "Expected an output_size that pools to (3, 3) windows, got (2, 2, 6, 6)."),
    "output_size-short": (lambda: u.conservative_max_unpool2d(V, T, 2, output_size=(6,)),
                          "Expected an output_size that pools to (3, 3) windows, got (6,)."),
    "unpool-padding": (lambda: u.conservative_max_unpool2d(V, T, 2, padding=2),
                       "Expected padding of at most half the kernel (2, 2), got (2, 2)."),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_refusal_says_what_was_expected_and_what_arrived(name):
    call, sentence = CASES[name]
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        call()


@pytest.mark.parametrize("size", range(1, 10))
def test_exactly_those_output_sizes_are_accepted_that_pool_to_the_values(size):
    values, ties = torch.zeros(1, 1, 3), torch.zeros(1, 1, 3, dtype=torch.uint8)
    counts = {p.multi_max_pool1d(torch.zeros(1, 1, size), 2, ceil_mode=mode)[0].shape[2] for mode in (False, True)
              if size > 1}  # fmt: skip
    if 3 in counts:
        assert u.conservative_max_unpool1d(values, ties, 2, output_size=(size,)).shape == (1, 1, size)
    else:
        with pytest.raises(InputError, match="output_size"):
            u.conservative_max_unpool1d(values, ties, 2, output_size=(size,))
