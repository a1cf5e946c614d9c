"""Loops over pixels, compiled by numba on their first call.

Compiling takes ten seconds of processor time, once per machine: the result is kept beside the module, or in the user's
cache folder (`NUMBA_CACHE_DIR` names another). Call `model.cutout.warm_up` before work starts, and before forking, so
that no image waits for it.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile a function of arrays and numbers; it runs without the interpreter lock."""
    try:
        kernel = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder that could be written to: every process compiles for itself
        kernel = numba.njit(nogil=True)(function)
    return cast(Callable[_P, _R], kernel)
