"""Count the parameters and multiply-adds of a model in its own file."""

from math import prod

import onnx

from engine_build.network import OURS, inputs_of
from engine_build.shapes import Dims, Shapes, follow
from model.card import Footprint
from pipeline.ids import SizeBucket

_WEIGHTS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
}
_OPEN_SIZE = SizeBucket(512, 512)


def count(wrapped: bytes, size_buckets: tuple[SizeBucket, ...]) -> Footprint:
    """Count a model that fulfils the contract.

    Parameters are the numbers stored as weights: batch norms folded into convolutions at export are gone, kept ones
    count with their running statistics. Multiply-adds are those of Conv, ConvTranspose, Gemm and MatMul, for one
    image of 512x512, or of the model's first size where its sides are fixed.
    """
    model = onnx.load_from_string(wrapped)
    entry = inputs_of(model.graph)[0]
    open_sides = any(dim.dim_value == 0 for dim in entry.type.tensor_type.shape.dim[1:3])
    size = _OPEN_SIZE if open_sides else size_buckets[0]
    return Footprint(
        _parameters(model),
        _macs(model, {entry.name: (1, size.height, size.width, 3)}),
        size,
        len(wrapped),
    )


def _parameters(model: onnx.ModelProto) -> int:
    total = 0
    for tensor in model.graph.initializer:
        if tensor.data_type in _WEIGHTS and not tensor.name.startswith(OURS):
            total += prod(tensor.dims)
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type in _WEIGHTS:
                    total += prod(attribute.t.dims)
    return total


def _macs(model: onnx.ModelProto, feeds: dict[str, Dims]) -> int | None:
    total = 0
    for node, shapes in follow(model, feeds):
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            macs = _of_node(node, shapes)
            if macs is None:
                return None
            total += macs
        elif node.op_type in ("If", "Loop", "Scan"):
            return None  # what runs in there is not known beforehand
    return total


def _of_node(node: onnx.NodeProto, shapes: Shapes) -> int | None:
    left, right = (shapes.dims(name) for name in node.input[:2])
    out = shapes.dims(node.output[0])
    if left is None or right is None or out is None:
        return None
    if node.op_type == "Conv":
        return prod(out) * prod(right[1:])  # weights [M, C / groups, k, k]
    if node.op_type == "ConvTranspose":
        return prod(left) * prod(right[1:])  # weights [C, M / groups, k, k]
    if node.op_type == "Gemm":
        transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
        return prod(out) * left[0 if transposed else 1]
    return prod(out) * left[-1]
