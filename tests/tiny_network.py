"""A network as small as can be that is shaped like a downloaded one: float NCHW, batch 1, several outputs."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pipeline.ids import SizeBucket

WEIGHTS = np.random.default_rng(1).normal(0, 0.3, (1, 3, 3, 3)).astype(np.float32)


def tiny_network(size: SizeBucket, opset: int = 17, bias: float = 0.0) -> bytes:
    """3x3 convolution and sigmoid; a second output nobody wants has weights of its own."""
    shape = [1, 1, size.height, size.width]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input.1", "weights", "bias"], ["logits"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["input.1", "side.weights"], ["side.logits"], pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["logits"], ["main"]),
            helper.make_node("Sigmoid", ["side.logits"], ["side"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, size.height, size.width])],
        [
            helper.make_tensor_value_info("main", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("side", TensorProto.FLOAT, shape),
        ],
        [
            numpy_helper.from_array(WEIGHTS, "weights"),
            numpy_helper.from_array(np.array([bias], np.float32), "bias"),
            numpy_helper.from_array(WEIGHTS, "side.weights"),
        ],
        value_info=[helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()
