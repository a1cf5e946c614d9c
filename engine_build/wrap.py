"""Wrap a downloaded saliency network into the contract of every engine: uint8 photos in, uint8 alpha out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

INPUT, OUTPUT, BATCH = "images", "alpha", "N"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OLDEST_OPSET = 11  # from here on Clip takes its limits as inputs
_SQUEEZE_AXES_INPUT = 13  # from here on Squeeze takes its axes as an input


def wrap(
    source: Path | bytes,
    *,
    input_size: SizeBucket,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> bytes:
    """Put normalising before a network and quantising behind it, and free its batch dimension.

    The result takes `images`, uint8 [N, H, W, 3] RGB, any N >= 1, and gives `alpha`, uint8 [N, H, W]. Inside: Cast,
    (x / 255 - mean) / std, NHWC to NCHW, the network, its first output clipped to 0..1, times 255, rounded. The other
    outputs and the nodes that only feed them are gone. The same source gives the same bytes.

    Two steps of upstream's script (github.com/xuebinqin/U-2-Net, u2net_test.py) are left out on purpose: it divides
    a photo by its own maximum, but a dark photo must stay dark; it stretches every output to 0..1, but a photo
    without a subject must stay empty.

    Args:
        source: an ONNX file or its bytes: one float32 input [1, 3, H, W], first output a probability [1, 1, H, W].
        input_size: H and W in pixels that the network runs at.
        mean: of R, G, B, for pixels in 0..1.
        std: of R, G, B, for pixels in 0..1.

    Raises:
        SetupError: when the source is no ONNX file or is not shaped like that.
    """
    model = _read(source)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise SetupError(f"The network uses ONNX opset {opset}, expected {OLDEST_OPSET} or newer.")
    graph = model.graph
    entrance = _float_input(graph, input_size)
    exit_ = graph.output[0].name
    network = _needed(graph.node, exit_)
    weights = {name for node in network for name in node.input}

    scale = 1.0 / (255.0 * np.asarray(std, np.float64))
    shift = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
    constants = {
        "mattemill.scale": scale.astype(np.float32),
        "mattemill.shift": shift.astype(np.float32),
        "mattemill.zero": np.float32(0.0),
        "mattemill.one": np.float32(1.0),
        "mattemill.white": np.float32(255.0),
        "mattemill.half": np.float32(0.5),
    }
    before = [
        # TensorRT takes uint8 only where it feeds a Cast directly.
        helper.make_node("Cast", [INPUT], ["mattemill.float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["mattemill.float", "mattemill.scale"], ["mattemill.scaled"]),
        helper.make_node("Add", ["mattemill.scaled", "mattemill.shift"], ["mattemill.normalised"]),
        helper.make_node("Transpose", ["mattemill.normalised"], [entrance], perm=[0, 3, 1, 2]),
    ]
    after = [  # [N, 1, H, W] float32 -> [N, H, W] uint8
        helper.make_node("Clip", [exit_, "mattemill.zero", "mattemill.one"], ["mattemill.clipped"]),
        helper.make_node("Mul", ["mattemill.clipped", "mattemill.white"], ["mattemill.levels"]),
        helper.make_node("Add", ["mattemill.levels", "mattemill.half"], ["mattemill.rounded"]),
    ]
    if opset >= _SQUEEZE_AXES_INPUT:
        constants["mattemill.axis"] = np.array([1], np.int64)
        after.append(helper.make_node("Squeeze", ["mattemill.rounded", "mattemill.axis"], ["mattemill.flat"]))
    else:
        after.append(helper.make_node("Squeeze", ["mattemill.rounded"], ["mattemill.flat"], axes=[1]))
    after.append(helper.make_node("Cast", ["mattemill.flat"], [OUTPUT], to=onnx.TensorProto.UINT8))

    height, width = input_size.height, input_size.width
    # A graph made anew leaves behind value_info, whose shapes still say batch 1.
    wrapped = helper.make_graph(
        [*before, *network, *after],
        "mattemill",
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, [BATCH, height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.UINT8, [BATCH, height, width])],
        [tensor for tensor in graph.initializer if tensor.name in weights]
        + [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    result = helper.make_model(
        wrapped,
        opset_imports=list(model.opset_import),
        ir_version=max(model.ir_version, 4),  # before 4 every weight had to be an input too
        producer_name="mattemill",
    )
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SetupError(f"The network cannot be wrapped: {str(error).splitlines()[0]}.") from error
    data: bytes = result.SerializeToString(deterministic=True)
    return data


def _read(source: Path | bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    except Exception as error:  # protobuf's DecodeError, and what onnx makes of a foreign file
        raise SetupError("The file is no ONNX network.", "give the .onnx file of the model") from error
    if not model.graph.node or not model.graph.output:
        raise SetupError("The file holds an empty ONNX network.", "give the .onnx file of the model")
    return model


def _float_input(graph: onnx.GraphProto, size: SizeBucket) -> str:
    """Name of the network's one input, after checking both ends of the network; an open dimension fits anything."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in weights]
    if len(inputs) != 1:
        raise SetupError(f"The network has {len(inputs)} inputs, expected one.")
    for what, entry, channels in (("input", inputs[0], 3), ("first output", graph.output[0], 1)):
        tensor = entry.type.tensor_type
        got = [dimension.dim_value for dimension in tensor.shape.dim]  # 0: open
        expected = [1, channels, size.height, size.width]
        fits = len(got) == 4 and all(g in (0, e) for g, e in zip(got[1:], expected[1:], strict=True))
        if tensor.elem_type != onnx.TensorProto.FLOAT or not fits:
            kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise SetupError(f"The network's {what} is {kind} {got}, expected FLOAT {expected}.")
    name: str = inputs[0].name
    return name


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that `output` depends on, in their order (an ONNX graph is sorted topologically)."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
