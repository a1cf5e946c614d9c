"""What FP16 does to a network, on a processor that has none: FP32 with every tensor rounded as FP16 would round it."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.errors import SetupError

_FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
_SPLIT = np.float32(2**13 + 1)
"""Veltkamp's splitting: FP32 has 24 significant bits, and with this factor 24 - 13 are left, as many as FP16 has."""
_LARGEST = np.float32(65504.0)


def rounded(network: bytes) -> bytes:
    """The FP16 network for ONNX Runtime on a processor.

    Given the FP16 network itself, ONNX Runtime computes it in FP32 there and drops the roundings between: only the
    weights would be compared, and an overflow would never be seen. Here every result of FP16 type is rounded to 11
    significant bits, and is infinite beyond 65504. The sums inside an operation stay exact, as a GPU's tensor cores
    keep them in FP32; results below 6e-5, where FP16 has fewer bits, are not rounded further.

    Args:
        network: from `engine_build.half`, or exported in FP16.

    Raises:
        SetupError: when its types cannot be told.
    """
    proto = onnx.load_from_string(network)
    kinds = _kinds(proto)
    weights = [tensor for tensor in proto.graph.initializer if tensor.data_type != _HALF]
    for tensor in proto.graph.initializer:
        if tensor.data_type == _HALF:
            weights.append(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for name, value in (("split", _SPLIT), ("largest", _LARGEST), ("infinite", np.float32(np.inf))):
        weights.append(numpy_helper.from_array(np.asarray(value), f"rounding.{name}"))
    nodes = []
    for node in proto.graph.node:
        step = onnx.NodeProto()
        step.CopyFrom(node)
        for attribute in step.attribute:
            if attribute.name == "to" and attribute.i == _HALF:
                attribute.i = _FLOAT
            elif attribute.t.data_type == _HALF:
                whole = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(whole))
        nodes.append(step)
        for index, name in enumerate(node.output):
            if kinds.get(name) == _HALF:
                step.output[index] = f"{name}.exact"
                nodes.extend(_round(step.output[index], name))
    graph = helper.make_graph(nodes, proto.graph.name, list(proto.graph.input), list(proto.graph.output), weights)
    model = helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)
    return bytes(model.SerializeToString())


def _round(exact: str, name: str) -> list[onnx.NodeProto]:
    """Six steps from `exact` to `name`."""
    return [
        helper.make_node("Mul", [exact, "rounding.split"], [f"{name}.scaled"]),
        helper.make_node("Sub", [f"{name}.scaled", exact], [f"{name}.low"]),
        helper.make_node("Sub", [f"{name}.scaled", f"{name}.low"], [f"{name}.near"]),
        helper.make_node("Abs", [f"{name}.near"], [f"{name}.size"]),
        helper.make_node("Greater", [f"{name}.size", "rounding.largest"], [f"{name}.over"]),
        helper.make_node("Where", [f"{name}.over", "rounding.infinite", f"{name}.near"], [name]),
    ]


def _kinds(proto: onnx.ModelProto) -> dict[str, int]:
    try:
        graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise SetupError(f"The types of the network cannot be told: {str(error).splitlines()[0]}.") from error
    return {entry.name: entry.type.tensor_type.elem_type for entry in (*graph.value_info, *graph.output)}
