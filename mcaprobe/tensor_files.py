"""What is in a tensor file?  One finite tensor, or one clear sentence; nothing in the file is executed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.volumes import existing, first_line

TENSOR_SUFFIXES = (".npy", ".safetensors", ".pt", ".pth")


def load_tensor(path: str | Path) -> Tensor:
    """Return the one tensor of a `.npy`, `.safetensors` or `.pt` file; nothing in the file is executed.

    Raises:
        InputError: not readable, not exactly one tensor, or with NaN or infinity.
    """
    path = existing(path)
    try:
        if path.suffix.lower() == ".npy":
            found: Any = torch.from_numpy(np.ascontiguousarray(np.load(path, allow_pickle=False)))
        elif path.suffix.lower() == ".safetensors":
            found = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, KeyError) as error:
        reason = first_line(error)
        raise InputError(f"Expected a tensor in {path}, which cannot be read: {reason}") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise InputError(
            f"Expected a tensor in {path}, which is damaged or cannot be read without executing it "
            f"({type(error).__name__})."
        ) from error
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    if not isinstance(found, Tensor):
        inside = (
            f"{len(found)} entries: {', '.join(map(str, list(found)[:5]))}"
            if isinstance(found, dict)
            else type(found).__name__
        )
        raise InputError(f"Expected one tensor in {path}, got {inside}.")
    if found.numel() == 0:
        raise InputError(f"Expected a tensor with elements, got {path} of shape {tuple(found.shape)}.")
    bad = int((~torch.isfinite(found)).sum())
    if bad:
        raise InputError(
            f"Expected finite values, got {bad} elements of {found.numel()} that are NaN or infinite in {path}."
        )
    return found
