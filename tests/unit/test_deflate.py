import heapq
import zlib
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.codecs.deflate import Deflater, _lengths

UInt8 = npt.NDArray[np.uint8]


def compressed(data: UInt8, most: int) -> bytes:
    deflater = Deflater(most)
    ends = [*range(0, len(data), most), len(data)] if len(data) else [0, 0]
    out = b""
    for start, end in pairwise(ends):
        deflater.data[: end - start] = data[start:end]
        out += deflater.block(end - start, last=end == len(data))
    return out


def assert_comes_back(data: UInt8, most: int) -> None:
    inflater = zlib.decompressobj()
    assert inflater.decompress(compressed(data, most)) == data.tobytes()
    assert inflater.eof
    assert not inflater.unused_data


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(0, 5000),
    most=st.integers(1, 3000),
    zeros=st.floats(0, 1),
    levels=st.sampled_from([1, 2, 17, 256]),
    seed=st.integers(0, 2**31),
)
def test_any_bytes_in_any_pieces(size: int, most: int, zeros: float, levels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = random.integers(0, levels, size).astype(np.uint8)
    for start in random.integers(0, size + 1, 6):
        data[start : start + random.integers(0, 600)] = 0
    data[random.random(size) < zeros] = 0
    assert_comes_back(data, most)


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", [0, 1, 5])
def test_runs_of_zeros_of_every_length(before: int, after: int) -> None:
    for length in (*range(40), *range(250, 290), *range(510, 540), *range(770, 780), 5000):
        data = np.concatenate([np.full(before, 7), np.zeros(length), np.full(after, 9)]).astype(np.uint8)
        assert_comes_back(data, max(len(data), 1))


def test_a_block_so_long_that_only_a_sample_is_counted() -> None:
    random = np.random.default_rng(0)
    data = np.zeros(400_000, np.uint8)
    data[100_000:300_000] = random.geometric(0.2, 200_000).clip(0, 255)
    data[::1000] = random.integers(0, 256, 400)
    assert_comes_back(data, len(data))
    assert len(compressed(data, len(data))) < 1.02 * len(compressed(data, 40_000))  # where nearly all is counted


def test_codes_are_no_longer_than_13_bits_and_leave_none_over() -> None:
    # Fibonacci's numbers make Huffman's codes as long as can be: these would have 39 bits.
    frequencies = np.ones(286, np.int64)
    for symbol in range(2, 40):
        frequencies[symbol] = frequencies[symbol - 1] + frequencies[symbol - 2]
    lengths = _lengths(frequencies)
    assert lengths.max() == 13
    assert sum(2.0 ** -int(length) for length in lengths) == 1
    assert lengths[39] == lengths.min()


def test_the_lengths_are_huffmans_where_none_is_too_long() -> None:
    frequencies = np.random.default_rng(0).integers(100, 1000, 286)
    heap = [(int(frequency), symbol, (symbol,)) for symbol, frequency in enumerate(frequencies)]
    bits = 0
    heapq.heapify(heap)
    while len(heap) > 1:
        one, other = heapq.heappop(heap), heapq.heappop(heap)
        bits += one[0] + other[0]
        heapq.heappush(heap, (one[0] + other[0], 1000 + len(heap), one[2] + other[2]))
    assert int((_lengths(frequencies) * frequencies.astype(np.uint64)).sum()) == bits


def test_more_than_there_is_room_for() -> None:
    with pytest.raises(ValueError, match="at most 10 bytes; got 11"):
        Deflater(10).block(11, last=True)


def test_noise_hardly_grows() -> None:
    data = np.random.default_rng(0).integers(0, 256, 200_000).astype(np.uint8)
    assert len(compressed(data, 50_000)) < 1.01 * len(data)


def test_noise_that_the_sample_does_not_see_fits() -> None:
    data = np.zeros(400_000, np.uint8)
    for window in range(97):  # all that lies outside of the windows that are counted
        begin = 4 * (1024 * window + window * 389 % 832 + 192)
        data[begin : 4 * (1024 * (window + 1))] = np.random.default_rng(window).integers(
            0, 256, len(data[begin : 4 * (1024 * (window + 1))])
        )
    assert_comes_back(data, len(data))
