"""Deflate (RFC 1951, in the wrapping of RFC 1950) for the filtered rows of a photo.

The noise of a photo hardly ever repeats. What does is the nothing round a subject, zeros after filtering. So there is
no search for what was there before: a block is literals and runs of zeros, in Huffman codes that fit it. After the
filter "Paeth" that makes files of the same size in half the time of ISA-L's fastest level after "Up"
(docs/decisions/0025-huffman-and-zeros.md).

Bytes are looked at in words of four, as they lie in the memory of a little-endian processor.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from model.compiled import compiled

UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Bits: TypeAlias = "tuple[np.uint64, np.uint64, np.uint64]"

_HEADER: Final = (0x0178, 16)
"""As bits, the first one lowest, and how many these are."""
_SYMBOLS: Final = 286
_END: Final = 256
_LONGEST_RUN: Final = 258
_LONGEST_CODE: Final = 13
_PAIR_BITS: Final = 27
"""Bits of a word of 32 for the codes of two literals; the others say how long both are."""

# A block's codes are made for a sample of its words, one window of each stretch, unless it is short.
_WINDOW: Final = 192
_STRETCH: Final = 1024
_SHORT: Final = 16 * _STRETCH


def _runs() -> npt.NDArray[np.uint32]:
    """For each run of 3 to 258 bytes its symbol, further bits, and how many those are: uint32 [259, 3]."""
    table = np.zeros((_LONGEST_RUN + 1, 3), np.uint32)
    length, symbol = 3, 257
    for bits in (0, 0, 1, 2, 3, 4, 5):
        for _ in range(4):
            for further in range(1 << bits):
                table[length] = symbol, further, bits
                length += 1
            symbol += 1
            if length > _LONGEST_RUN:
                break
    table[_LONGEST_RUN] = 285, 0, 0
    return table


_RUNS: Final = _runs()
_CODES_OF_LENGTHS: Final = 19
"""Those of 16, 17 and 18, which are not used, then those of the lengths 0 to 15, of four bits each."""


class Deflater:
    """Compresses a stream block by block, each with codes of its own.

    Args:
        most: bytes of the largest block.

    Attributes:
        data: uint8 [most], where the bytes of the next block are put.
    """

    def __init__(self, most: int) -> None:
        self._words = np.zeros(most // 4 + 3, np.uint32)
        self.data = self._words.view(np.uint8)[:most]
        self._out = np.empty(most * _LONGEST_CODE // 64 + 64, np.uint64)
        self._bits = np.array(_HEADER, np.uint64)  # those that do not fill a word yet, and how many they are
        self._pairs = np.empty(1 << 16, np.uint32)
        self._checksum = 1

    def block(self, used: int, *, last: bool) -> memoryview:
        """The next bytes of the stream, good until more are asked for.

        Args:
            used: how many bytes of `data` to compress; what they are afterwards is not said.
            last: whether the stream ends with them.

        Raises:
            ValueError: when there is no room for so many.
        """
        if not 0 <= used <= len(self.data):
            raise ValueError(f"a block has at most {len(self.data)} bytes; got {used}")
        self._checksum = isal_zlib.adler32(self.data[:used].data, self._checksum)
        whole = 8 * int(_block(self._words, used, last, self._pairs, self._out, self._bits))
        out = self._out.view(np.uint8).data
        if last:
            end = whole - (-int(self._bits[1]) // 8)
            whole = end + 4
            out[end:whole] = self._checksum.to_bytes(4, "big")
        return out[:whole]


@compiled
def _block(words: UInt32, used: int, last: bool, pairs: UInt32, out: UInt64, bits: UInt64) -> np.uint64:
    """Compress the first `used` bytes of `words` to `out`; gives how many words of it are full."""
    count = used // 4
    rest = words[count]
    words[count] = 1  # where every run of zeros ends
    frequencies = _tally(words, count)
    for k in range(used % 4):
        frequencies[(rest >> np.uint32(8 * k)) & np.uint32(255)] += 1
    lengths = _lengths(frequencies)
    codes = _codes(lengths)
    _pair(codes, lengths, pairs)

    at, value, have = np.uint64(0), bits[0], bits[1]
    at, value, have = _put(out, at, value, have, np.uint64(last), np.uint64(1))
    at, value, have = _put(out, at, value, have, np.uint64(2), np.uint64(2))  # the codes of this block come with it:
    at, value, have = _put(out, at, value, have, np.uint64(_SYMBOLS - 257), np.uint64(5))
    at, value, have = _put(out, at, value, have, np.uint64(0), np.uint64(5))  # one distance
    at, value, have = _put(out, at, value, have, np.uint64(_CODES_OF_LENGTHS - 4), np.uint64(4))
    for k in range(_CODES_OF_LENGTHS):
        at, value, have = _put(out, at, value, have, np.uint64(0 if k < 3 else 4), np.uint64(3))
    for symbol in range(_SYMBOLS):
        at, value, have = _put(out, at, value, have, _reversed(lengths[symbol], 4), np.uint64(4))
    at, value, have = _put(out, at, value, have, _reversed(1, 4), np.uint64(4))  # the distance 1 is one bit

    at, value, have = _write(words, count, pairs, codes, lengths, out, at, value, have)
    for k in range(used % 4):
        byte = (rest >> np.uint32(8 * k)) & np.uint32(255)
        at, value, have = _put(out, at, value, have, codes[byte], lengths[byte])
    at, value, have = _put(out, at, value, have, codes[_END], lengths[_END])
    out[at] = value
    bits[0], bits[1] = value, have
    return at


@compiled
def _put(out: UInt64, at: np.uint64, value: np.uint64, have: np.uint64, more: np.uint64, count: np.uint64) -> Bits:
    """Append `count` bits to the `have` bits of `value`; 64 of them go to out[at]. All three are given back."""
    value |= more << have
    out[at] = value
    left = (more >> np.uint64(1)) >> (np.uint64(63) - have)
    have += count
    full = have >> np.uint64(6)
    return at + full, left if full else value, have & np.uint64(63)


@compiled
def _write(
    words: UInt32,
    count: int,
    pairs: UInt32,
    codes: UInt64,
    lengths: UInt64,
    out: UInt64,
    at: np.uint64,
    value: np.uint64,
    have: np.uint64,
) -> Bits:
    """Append the codes of `count` words, of which one more is not 0, and another one is there."""
    # Unsigned numbers of one kind throughout: others would be looked at whether they count from the end.
    one, three, longest = np.uint64(1), np.uint64(3), np.uint64(_LONGEST_RUN)
    i, end = np.uint64(0), np.uint64(count)
    size, code = np.uint32(_PAIR_BITS), np.uint32((1 << _PAIR_BITS) - 1)
    while i < end:
        word = words[i]
        low, high = pairs[word & np.uint32(0xFFFF)], pairs[word >> np.uint32(16)]
        first = np.uint64(low >> size)
        more = np.uint64(low & code) | (np.uint64(high & code) << first)
        at, value, have = _put(out, at, value, have, more, first + np.uint64(high >> size))
        i += one
        if (word | words[i] | words[i + one]) != 0:
            continue
        begin = i
        while words[i] == 0:
            i += one
        run = (i - begin) * np.uint64(4)
        while run:
            if run >= three:
                length = min(run, longest)
                symbol, further = _RUNS[length, 0], np.uint64(_RUNS[length, 1])
                more = codes[symbol] | (further << lengths[symbol])  # and a 0, for the distance 1
                at, value, have = _put(out, at, value, have, more, lengths[symbol] + np.uint64(_RUNS[length, 2]) + one)
                run -= length
            else:
                at, value, have = _put(out, at, value, have, codes[0], lengths[0])
                run -= one
    return at, value, have


@compiled
def _tally(words: UInt32, count: int) -> npt.NDArray[np.int64]:
    """How often `_write` would use each symbol, in a sample of the words; at least once: int64 [286]."""
    counts = np.ones((4, _SYMBOLS), np.uint32)  # a table for each byte of a word: their updates need not wait
    stretch, window = (_STRETCH, _WINDOW) if count >= _SHORT else (max(count, 1), count)
    one, byte, longest = np.uint64(1), np.uint32(255), np.uint64(_LONGEST_RUN)
    for number in range(count // stretch):
        # Here and there within their stretches, lest all lie in the same columns of a picture.
        i = np.uint64(number * stretch + number * 389 % max(stretch - window, 1))
        end = i + np.uint64(window)
        while i < end:
            word = words[i]
            counts[0, word & byte] += np.uint32(1)
            counts[1, (word >> np.uint32(8)) & byte] += np.uint32(1)
            counts[2, (word >> np.uint32(16)) & byte] += np.uint32(1)
            counts[3, word >> np.uint32(24)] += np.uint32(1)
            i += one
            if (word | words[i] | words[i + one]) != 0:
                continue
            begin = i
            while i < end and words[i] == 0:
                i += one
            run = (i - begin) * np.uint64(4)
            counts[0, 285] += np.uint32(run // longest)
            counts[0, _RUNS[run % longest, 0]] += np.uint32(1)  # of less than 3 bytes a literal 0
    total = np.empty(_SYMBOLS, np.int64)
    for symbol in range(_SYMBOLS):
        total[symbol] = counts[0, symbol] + counts[1, symbol] + counts[2, symbol] + counts[3, symbol]
    return total


@compiled
def _lengths(frequencies: npt.NDArray[np.int64]) -> UInt64:
    """How many bits Huffman's code for each symbol has; where one would be too long, rare ones are made less rare."""
    symbols = len(frequencies)
    nodes = 2 * symbols - 1
    weight, parent, depth = np.empty(nodes, np.int64), np.empty(nodes, np.int64), np.zeros(nodes, np.int64)
    out = np.empty(symbols, np.uint64)
    while True:
        order = np.sort(frequencies * 512 + np.arange(symbols))
        weight[:symbols] = order // 512
        leaf, node = 0, symbols
        for made in range(symbols, nodes):
            weight[made] = 0
            for _ in range(2):
                if leaf < symbols and (node == made or weight[leaf] <= weight[node]):
                    lightest, leaf = leaf, leaf + 1
                else:
                    lightest, node = node, node + 1
                weight[made] += weight[lightest]
                parent[lightest] = made
        for child in range(nodes - 2, -1, -1):
            depth[child] = depth[parent[child]] + 1
        if depth[:symbols].max() <= _LONGEST_CODE:
            for k in range(symbols):
                out[order[k] % 512] = depth[k]
            return out
        frequencies = (frequencies + 1) // 2


@compiled
def _codes(lengths: UInt64) -> UInt64:
    """The canonical codes of these lengths, the first bit lowest."""
    counts = np.zeros(_LONGEST_CODE + 2, np.int64)
    for length in lengths:
        counts[length + np.uint64(1)] += 1
    following = np.zeros(_LONGEST_CODE + 1, np.int64)
    for length in range(1, _LONGEST_CODE + 1):
        following[length] = (following[length - 1] + counts[length]) * 2
    out = np.empty(len(lengths), np.uint64)
    for symbol in range(len(lengths)):
        out[symbol] = _reversed(following[lengths[symbol]], lengths[symbol])
        following[lengths[symbol]] += 1
    return out


@compiled
def _reversed(code: int, length: int) -> np.uint64:
    out = 0
    for bit in range(length):
        out = out * 2 + ((code >> bit) & 1)
    return np.uint64(out)


@compiled
def _pair(codes: UInt64, lengths: UInt64, out: UInt32) -> None:
    """For each two literals, the first lower, their codes together, and in the upper five bits how long they are."""
    code, length = codes[:256].astype(np.uint32), lengths[:256].astype(np.uint32)
    for second in range(256):
        part = out[256 * second : 256 * second + 256]
        for first in range(256):
            both = code[first] | (code[second] << length[first])
            part[first] = both | ((length[first] + length[second]) << np.uint32(_PAIR_BITS))
