import io
import re
import struct
import zlib
from importlib.resources import files

import pytest
from PIL import Image, ImageOps

from pipeline.errors import Code
from producer.samples import Sample, expected_failures, samples

ORIENTATION = 0x0112
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def everything() -> list[Sample]:
    return list(samples())


@pytest.fixture(scope="module")
def good(everything: list[Sample]) -> list[Sample]:
    return [sample for sample in everything if sample.expected is None]


@pytest.fixture(scope="module")
def bad(everything: list[Sample]) -> dict[str, bytes]:
    return {sample.name: sample.body for sample in everything if sample.expected is not None}


def opened(sample: Sample) -> Image.Image:
    return Image.open(io.BytesIO(sample.body))


def test_there_are_enough_photos_for_a_demo_and_they_are_small(good: list[Sample]) -> None:
    assert len(good) >= 16
    assert len({sample.body for sample in good}) == len(good)
    assert sum(len(sample.body) for sample in good) < 10_000_000


def test_every_photo_decodes_to_the_end_and_shows_something(good: list[Sample]) -> None:
    for sample in good:
        with opened(sample) as image:
            image.load()
            darkest, brightest = image.convert("L").getextrema()
        assert brightest - darkest > 100, sample.name


def test_the_formats_that_break_naive_pipelines_are_all_there(good: list[Sample]) -> None:
    kinds = set()
    for sample in good:
        with opened(sample) as image:
            kinds.add((image.format, image.mode))
            extension = sample.name.rpartition(".")[2]
            assert {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension] == image.format
    assert ("JPEG", "CMYK") in kinds
    assert ("JPEG", "L") in kinds
    assert ("PNG", "RGB") in kinds
    assert ("WEBP", "RGB") in kinds


def test_the_cmyk_photo_is_brown_and_not_inverted(good: list[Sample]) -> None:
    (cmyk,) = [sample for sample in good if opened(sample).mode == "CMYK"]
    assert b"Adobe" in cmyk.body[:200]
    with opened(cmyk) as image:
        red, green, blue = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert red > green > blue


def test_one_photo_has_twelve_megapixels(good: list[Sample]) -> None:
    assert max(opened(sample).width * opened(sample).height for sample in good) >= 12_000_000


def test_one_portrait_is_stored_sideways(good: list[Sample]) -> None:
    sideways = [sample for sample in good if opened(sample).getexif().get(ORIENTATION) in {6, 8}]
    assert sideways
    for sample in sideways:
        with opened(sample) as image:
            assert image.width > image.height
            upright = ImageOps.exif_transpose(image)
            assert upright.width < upright.height


def test_names_have_folders_chinese_characters_and_spaces(good: list[Sample]) -> None:
    assert any(CHINESE.search(sample.name) and " " in sample.name for sample in good)
    assert len({sample.name.partition("/")[0] for sample in good if "/" in sample.name}) >= 2


def test_the_sources_list_names_every_photo_once_and_nothing_else(good: list[Sample]) -> None:
    text = files("producer.samples").joinpath("SOURCES.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(sample.name for sample in good)
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 6
        assert all(cells), row


def test_the_bad_ones_are_announced(everything: list[Sample]) -> None:
    found = {sample.name: sample.expected for sample in everything if sample.expected is not None}
    assert found == expected_failures()
    assert found == {
        "bad/truncated.jpg": Code.TRUNCATED,
        "bad/empty.jpg": Code.EMPTY_OBJECT,
        "bad/notes.jpg": Code.NOT_AN_IMAGE,
        "bad/huge.png": Code.TOO_LARGE,
    }


def test_the_truncated_photo_has_a_good_header_and_lacks_its_end(bad: dict[str, bytes], good: list[Sample]) -> None:
    body = bad["bad/truncated.jpg"]
    (whole,) = [sample.body for sample in good if sample.body.startswith(body)]
    assert len(body) == len(whole) * 6 // 10
    with Image.open(io.BytesIO(body)) as image:
        assert min(image.size) > 500
        with pytest.raises(OSError, match="truncated"):
            image.load()


def test_the_empty_and_the_text_object_are_no_images(bad: dict[str, bytes]) -> None:
    assert bad["bad/empty.jpg"] == b""
    notes = bad["bad/notes.jpg"]
    assert notes.decode("ascii").rstrip("\n").isprintable()
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(notes))


def test_the_huge_png_is_small_but_really_holds_400_megapixels(bad: dict[str, bytes]) -> None:
    body = bad["bad/huge.png"]
    assert len(body) < 1_000_000
    assert body[:8] == b"\x89PNG\r\n\x1a\n"
    chunks = {}
    position = 8
    while position < len(body):
        (length,) = struct.unpack_from(">I", body, position)
        kind, data = body[position + 4 : position + 8], body[position + 8 : position + 8 + length]
        assert struct.unpack_from(">I", body, position + 8 + length) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        position += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert width * height == 400_000_000
    assert (depth, colour) == (1, 0)
    inflate, inflated, rest = zlib.decompressobj(), 0, chunks[b"IDAT"]
    while rest:
        inflated += len(inflate.decompress(rest, 1 << 20))
        rest = inflate.unconsumed_tail
    inflated += len(inflate.flush())
    assert inflate.eof
    assert inflated == height * (1 + width // 8)


def test_two_calls_give_the_same_bytes(everything: list[Sample]) -> None:
    assert list(samples()) == everything
