"""Qt's binary resource files, in which some Debian packages keep their pictures."""

import struct
import zlib
from collections.abc import Iterator

_COMPRESSED, _DIRECTORY, _COMPRESSED_ZSTD = 1, 2, 4


def read_rcc(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a resource file: path and content. Files compressed with Zstandard are left out.

    The format is written by Qt's tool rcc: a header, a tree of fixed-size nodes, names in UTF-16, and contents with
    their length before them, all in big-endian order.

    Raises:
        ValueError: when it is no resource file or is cut off.
    """
    if data[:4] != b"qres":
        raise ValueError("this is no Qt resource file")
    try:
        version, tree, contents, names = struct.unpack_from(">IIII", data, 4)
        yield from _walk(data, (tree, contents, names), 14 if version < 2 else 22, 0, "")
    except (struct.error, zlib.error) as error:
        raise ValueError("this Qt resource file is damaged") from error


def _walk(data: bytes, sections: tuple[int, int, int], node: int, index: int, path: str) -> Iterator[tuple[str, bytes]]:
    tree, contents, names = sections
    offset = tree + index * node
    name_offset, flags = struct.unpack_from(">IH", data, offset)
    if index:
        (length,) = struct.unpack_from(">H", data, names + name_offset)
        start = names + name_offset + 6  # the length, then a hash
        name = data[start : start + 2 * length].decode("utf-16-be")
        path = f"{path}/{name}" if path else name
    if flags & _DIRECTORY:
        count, first = struct.unpack_from(">II", data, offset + 6)
        for child in range(first, first + count):
            yield from _walk(data, sections, node, child, path)
    elif not flags & _COMPRESSED_ZSTD:
        (start,) = struct.unpack_from(">I", data, offset + 10)
        start += contents
        (size,) = struct.unpack_from(">I", data, start)
        content = data[start + 4 : start + 4 + size]
        # qCompress puts the unpacked length before the zlib stream.
        yield path, zlib.decompress(content[4:]) if flags & _COMPRESSED else content
