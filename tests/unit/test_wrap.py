from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from engine_build.wrap import IMAGENET_MEAN, IMAGENET_STD, wrap
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from tests.tiny_network import tiny_network

SIZE = SizeBucket(24, 40)


def photos(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, SIZE.height, SIZE.width, 3), np.uint8)


def run(network: bytes, name: str, images: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(network).run(None, {name: images})[0]


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_alpha_is_what_the_network_says_of_the_normalised_photo(opset: int) -> None:
    source = tiny_network(SIZE, opset)
    images = photos(1)
    normalised = (images / 255 - IMAGENET_MEAN) / IMAGENET_STD
    probability = run(source, "input.1", normalised.transpose(0, 3, 1, 2).astype(np.float32))[:, 0]

    alpha = run(wrap(source, input_size=SIZE), "images", images)

    assert alpha.dtype == np.uint8
    assert alpha.shape == (1, SIZE.height, SIZE.width)
    assert np.abs(alpha - probability * 255).max() < 0.51  # rounded, not cut off


def test_a_batch_gives_the_bits_of_its_images_one_by_one() -> None:
    wrapped = wrap(tiny_network(SIZE), input_size=SIZE)
    images = photos(3)

    together = run(wrapped, "images", images)

    alone = [run(wrapped, "images", images[i : i + 1]) for i in range(3)]
    assert np.array_equal(together, np.concatenate(alone))


def test_a_photo_without_a_subject_stays_empty() -> None:
    wrapped = wrap(tiny_network(SIZE, bias=-12.0), input_size=SIZE)
    assert run(wrapped, "images", photos(1)).max() < 10


def test_uint8_feeds_a_cast_and_nothing_else() -> None:
    graph = onnx.load_from_string(wrap(tiny_network(SIZE), input_size=SIZE)).graph
    assert [node.op_type for node in graph.node if "images" in node.input] == ["Cast"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_unwanted_outputs_are_not_computed() -> None:
    graph = onnx.load_from_string(wrap(tiny_network(SIZE), input_size=SIZE)).graph
    assert [output.name for output in graph.output] == ["alpha"]
    assert not [node for node in graph.node if any(name.startswith("side") for name in node.output)]
    assert not [tensor for tensor in graph.initializer if tensor.name.startswith("side")]


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    source = tiny_network(SIZE)
    path = tmp_path / "tiny.onnx"
    path.write_bytes(source)
    assert wrap(path, input_size=SIZE) == wrap(source, input_size=SIZE)


@pytest.mark.parametrize(
    ("source", "size", "says"),
    [
        (b"GIF89a, surely no network", SIZE, "no ONNX network"),
        (b"", SIZE, "empty ONNX network"),
        (tiny_network(SIZE, opset=10), SIZE, "opset 10, expected 11"),
        (tiny_network(SIZE), SizeBucket(320, 320), r"\[1, 3, 24, 40\], expected FLOAT \[1, 3, 320, 320\]"),
        (wrap(tiny_network(SIZE), input_size=SIZE), SIZE, "UINT8"),
    ],
    ids=["no onnx", "empty", "old opset", "other size", "wrapped already"],
)
def test_what_does_not_fit_is_refused(source: bytes, size: SizeBucket, says: str) -> None:
    with pytest.raises(SetupError, match=says):
        wrap(source, input_size=size)
