"""How the world's scalar functions are compiled: by Numba for the CPU, and again by Numba inside a CUDA kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config

FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}  # fastmath, but infinities and NaN keep their meaning


def scalar(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of numbers and arrays; CUDA kernels that call it compile the same source for the device.

    Everything is inlined into the entry and array arguments are not reference-counted: passing them costs more than the
    arithmetic otherwise (measured: twelve times slower). NumPy's error model leaves out a check at each division."""
    if config.ENABLE_CUDASIM:  # type: ignore[attr-defined]
        return function  # Numba's CUDA simulator runs kernels as plain Python
    return numba.njit(function, fastmath=FAST, error_model="numpy", nogil=True, _nrt=False, forceinline=True)


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function that Python calls; the machine code is kept on disk and runs without the GIL, on one thread.

    Threads are the caller's: no Numba threading layer is ever started, so a process that forks stays safe."""
    return numba.njit(function, fastmath=FAST, error_model="numpy", nogil=True, cache=True)


def source_stamp() -> str:
    """A digest of the renderer's source. Numba's disk cache looks only at the file of the function that it caches, so
    entries are closures over this stamp: a change in any of these files then means a new compilation."""
    digest = hashlib.sha1(numba.__version__.encode())
    for name in ("compiled", "pack", "light", "rays", "sky", "surfaces", "shade", "styles", "truth", "render"):
        digest.update(Path(__file__).with_name(name + ".py").read_bytes())
    return digest.hexdigest()
