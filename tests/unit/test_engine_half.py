"""FP16 is what the network computes in, FP32 is what its ends and its shapes stay in, and the alpha hardly changes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine_build.half import half
from engine_build.parity import onnx_runner
from engine_build.rounding import rounded
from engine_build.wrap import wrap
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from tests.tiny_network import tiny_network

SIZE = SizeBucket(32, 48)


@pytest.fixture
def wrapped() -> bytes:
    return wrap(tiny_network(SIZE), input_size=SIZE)


def kinds(data: bytes) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data)).graph
    return {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.input, *graph.output)}


def test_the_network_is_half_and_its_ends_are_whole(wrapped: bytes) -> None:
    found = kinds(half(wrapped))
    assert found["images"] == found["alpha"] == TensorProto.UINT8
    assert found["logits"] == TensorProto.FLOAT16
    assert found["main"] == TensorProto.FLOAT  # sigmoid
    assert found["mattemill.normalised"] == TensorProto.FLOAT
    weights = {one.name: one.data_type for one in onnx.load_from_string(half(wrapped)).graph.initializer}
    assert weights["weights.half"] == TensorProto.FLOAT16
    assert "weights" not in weights


def test_the_alpha_differs_by_one_level_at_most(wrapped: bytes) -> None:
    images = np.random.default_rng(4).integers(0, 256, (3, 32, 48, 3), np.uint8)
    gap = onnx_runner(wrapped)(images).astype(int) - onnx_runner(half(wrapped))(images)
    assert np.abs(gap).max() <= 1


def test_the_same_network_gives_the_same_bytes_and_half_stays_half(wrapped: bytes) -> None:
    once = half(wrapped)
    assert half(wrapped) == once
    assert half(once) == once


def graph_of(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> bytes:
    """A contract network around `nodes`, which lead from x [N, 3, H, W] to y [N, 1, H, W]."""
    ends = [
        helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["x"], perm=[0, 3, 1, 2]),
        *nodes,
        helper.make_node("Sigmoid", ["y"], ["p"]),
        helper.make_node("Mul", ["p", "white"], ["levels"]),
        helper.make_node("Squeeze", ["levels", "axis"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["alpha"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        ends,
        "made",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 32, 48, 3])],
        [helper.make_tensor_value_info("alpha", TensorProto.UINT8, ["N", 32, 48])],
        [
            numpy_helper.from_array(np.float32(255), "white"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            *weights,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


KERNEL = numpy_helper.from_array(np.full((1, 3, 1, 1), 0.001, np.float32), "kernel")


def test_sizes_of_a_resize_stay_exact() -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 1 / 3, 1 / 3], np.float32), "scales")
    back = numpy_helper.from_array(np.array([0, 0, 32, 48], np.int64), "back")
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"]),
        helper.make_node("Resize", ["c", "", "scales"], ["small"], mode="nearest"),
        helper.make_node("Shape", ["c"], ["shape"]),
        helper.make_node("Resize", ["small", "", "", "shape"], ["y"], mode="linear"),
    ]
    data = graph_of(nodes, [KERNEL, scales, back])
    turned = half(data)
    found = kinds(turned)
    assert found["small"] == TensorProto.FLOAT16
    weights = {one.name: one.data_type for one in onnx.load_from_string(turned).graph.initializer}
    assert weights["scales"] == TensorProto.FLOAT
    images = np.full((2, 32, 48, 3), 90, np.uint8)
    assert np.abs(onnx_runner(turned)(images).astype(int) - onnx_runner(data)(images)).max() <= 1


def test_a_weight_that_half_cannot_hold_is_refused() -> None:
    kernel = numpy_helper.from_array(np.full((1, 3, 1, 1), 7e4, np.float32), "kernel")
    with pytest.raises(SetupError, match=r"weight 'kernel' reaches 70000.*--precision fp32"):
        half(graph_of([helper.make_node("Conv", ["x", "kernel"], ["y"])], [kernel]))


def test_branches_are_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Conv", ["x", "kernel"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    with pytest.raises(SetupError, match="branches or loops"):
        half(graph_of(nodes, [KERNEL, yes]))


def test_imitated_roundings_are_those_of_fp16() -> None:
    """One FP16 operation after another, against NumPy's FP16."""
    nodes = [
        helper.make_node("Abs", ["x"], ["body"]),  # what stands before the first such node stays FP32
        helper.make_node("Mul", ["body", "third"], ["small"]),
        helper.make_node("Add", ["small", "hundred"], ["raised"]),
        helper.make_node("ReduceMean", ["raised"], ["y"], axes=[1]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(value), name) for name, value in (("third", 1 / 3), ("hundred", 100.0))
    ]
    data = expose(rounded(half(graph_of(nodes, constants))), ["small", "raised"])
    images = np.random.default_rng(6).integers(0, 256, (1, 32, 48, 3), np.uint8)
    got = onnxruntime.InferenceSession(data).run(["small", "raised"], {"images": images})
    x = images.transpose(0, 3, 1, 2).astype(np.float16)
    small = x * np.float16(1 / 3)
    assert np.array_equal(got[0], small.astype(np.float32))
    assert np.array_equal(got[1], (small + np.float16(100)).astype(np.float32))


def test_what_fp16_cannot_hold_is_infinite() -> None:
    nodes = [
        helper.make_node("Abs", ["x"], ["body"]),
        helper.make_node("Mul", ["body", "much"], ["large"]),
        helper.make_node("ReduceMean", ["large"], ["y"], axes=[1]),
    ]
    much = numpy_helper.from_array(np.float32(300), "much")
    data = expose(rounded(half(graph_of(nodes, [much]))), ["large"])
    images = np.array([200, 250], np.uint8).repeat(32 * 24 * 3).reshape(1, 32, 48, 3)
    got = onnxruntime.InferenceSession(data).run(["large"], {"images": images})[0]
    assert set(np.unique(got)) == {60000.0, np.inf}


def expose(data: bytes, names: list[str]) -> bytes:
    """The same graph with these tensors among its outputs."""
    model = onnx.load_from_string(data)
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())
