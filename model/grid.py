"""A small picture laid over a large one: which large pixels lie between which small ones.

As in `cv2.resize` with linear interpolation, pixel centres of both lie at (i + 0.5) / size. Cell c of a small axis is
what lies between the centres of its pixels c - 1 and c; cell 0 and the last one, outside of all centres, repeat the
border pixel.
"""

import numpy as np
import numpy.typing as npt

from model.compiled import compiled


@compiled
def cells_of(small: int, large: int) -> npt.NDArray[np.uint32]:
    """Where the cells of an axis begin: uint32 [small + 2], large pixels; cell c ends where c + 1 begins."""
    begins = np.empty(small + 2, np.uint32)
    begins[0] = 0
    begins[small + 1] = large
    for c in range(small):
        centre = (c + 0.5) * large / small - 0.5
        begins[c + 1] = min(max(int(np.ceil(centre)), 0), large)
    return begins


@compiled
def between(at: int, small: int, large: int) -> tuple[int, int, np.float32]:
    """The two small pixels that a large one lies between, and its share of the second."""
    place = min(max((at + 0.5) * small / large - 0.5, 0.0), small - 1.0)
    first = int(place)
    return first, min(first + 1, small - 1), np.float32(place - first)
