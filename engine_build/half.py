"""Turn a network that computes in FP32 into one that computes in FP16, between ends that stay FP32."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.errors import SetupError

_FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
_LARGEST = 65504.0
_HINT = "build it with --precision fp32, which is slower"

_BEFORE = {"Cast", "Mul", "Add", "Sub", "Div", "Transpose"}
"""What may stand between the uint8 images and the network: normalising, NHWC to NCHW."""
_BEHIND = {"Cast", "Squeeze", "Transpose", "Reshape", "Add", "Mul", "Clip", "Min", "Max", "Floor", "Round", "Sigmoid"}
"""What may stand between the logits and the uint8 alpha."""
_STAYS_FLOAT = {"Resize": {1, 2}, "Upsample": {1}}
"""Operands that ONNX knows in FP32 only, or that say sizes: FP16 cannot hold them exactly."""


def half(model: bytes) -> bytes:
    """Give the same network in FP16, for a strongly typed TensorRT network: its types are what the graph says.

    Normalising in front, and sigmoid, scaling and rounding behind, stay in FP32, with a Cast between. So does
    whatever computes shapes only. A graph that is FP16 already comes back as it is.

    Args:
        model: an ONNX file that fulfils the contract (see `model.catalogue.CONTRACT`).

    Raises:
        SetupError: when a weight is too large for FP16, or the network has parts that cannot be turned.
    """
    proto = onnx.load_from_string(model)
    if any(attribute.HasField("g") or attribute.graphs for node in proto.graph.node for attribute in node.attribute):
        raise SetupError("The network has branches or loops, which cannot be turned into FP16.", _HINT)
    turned = _Turn(proto).graph()
    result = helper.make_model(
        turned,
        opset_imports=list(proto.opset_import),
        ir_version=proto.ir_version,
        producer_name="mattemill",
    )
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SetupError(f"The network cannot be turned into FP16: {str(error).splitlines()[0]}.", _HINT) from error
    data: bytes = result.SerializeToString(deterministic=True)
    return data


class _Turn:
    """One pass over the nodes in their order. A tensor is FP16 when a node of the network's body made it."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._graph = proto.graph
        self._weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._kinds = _kinds(proto)
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._halves: dict[str, onnx.TensorProto] = {}

    def graph(self) -> onnx.GraphProto:
        ends = _ends(self._graph, set(self._weights))
        fed = {entry.name for entry in self._graph.input} - set(self._weights)
        made_half: set[str] = set()
        for index, node in enumerate(self._graph.node):
            # Shapes are no pixels: what is computed from them alone stays in FP32.
            from_pixels = node.op_type not in ("Shape", "Size") and any(name in fed for name in node.input)
            if from_pixels:
                fed.update(node.output)
            if not from_pixels or index in ends:
                self._nodes.append(self._with_inputs(node, made_half, _FLOAT, set(range(len(node.input)))))
                continue
            body = self._with_inputs(node, made_half, _HALF, set(range(len(node.input))) - _stays_float(node))
            body = self._with_inputs(body, made_half, _FLOAT, _stays_float(node))
            for attribute in body.attribute:
                if body.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
                    attribute.i = _HALF
            self._nodes.append(body)
            made_half.update(name for name in node.output if self._kinds.get(name) == _FLOAT)
        used = {name for node in self._nodes for name in node.input}
        weights = [tensor for name, tensor in self._weights.items() if name in used]
        return helper.make_graph(
            self._nodes,
            self._graph.name,
            list(self._graph.input),
            list(self._graph.output),
            weights + list(self._halves.values()),
        )

    def _with_inputs(self, node: onnx.NodeProto, made_half: set[str], kind: int, operands: set[int]) -> onnx.NodeProto:
        """The node with these operands in FP32 or FP16, those of other types as they are."""
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        for operand in operands:
            name = node.input[operand]
            if self._kinds.get(name) != _FLOAT or (name in made_half) == (kind == _HALF):
                continue
            changed.input[operand] = self._half_weight(name) if name in self._weights else self._cast(name, kind)
        return changed

    def _half_weight(self, name: str) -> str:
        if name not in self._halves:
            value = numpy_helper.to_array(self._weights[name])
            largest = float(np.abs(value).max(initial=0.0))
            if not largest <= _LARGEST:
                raise SetupError(
                    f"The weight {name!r} reaches {largest:g}, expected at most {_LARGEST:g} for FP16.", _HINT
                )
            self._halves[name] = numpy_helper.from_array(value.astype(np.float16), f"{name}.half")
        return self._halves[name].name

    def _cast(self, name: str, kind: int) -> str:
        if (name, kind) not in self._casts:
            to = f"{name}.half" if kind == _HALF else f"{name}.float"
            self._nodes.append(helper.make_node("Cast", [name], [to], to=kind))
            self._casts[name, kind] = to
        return self._casts[name, kind]


def _stays_float(node: onnx.NodeProto) -> set[int]:
    return _STAYS_FLOAT.get(node.op_type, set()) & set(range(len(node.input)))


def _kinds(proto: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for entry in (*graph.input, *graph.value_info, *graph.output):
        kinds[entry.name] = entry.type.tensor_type.elem_type
    missing = [name for node in graph.node for name in node.output if name and name not in kinds]
    if missing:
        raise SetupError(f"The type of the network's tensor {missing[0]!r} cannot be told.", _HINT)
    return kinds


def _ends(graph: onnx.GraphProto, weights: set[str]) -> set[int]:
    """The nodes in front of the network and behind it, by their place: chains of few kinds with one data operand."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    takers: dict[str, list[int]] = {}
    for index, node in enumerate(graph.node):
        for name in node.input:
            takers.setdefault(name, []).append(index)

    def chained(index: int, kinds: set[str]) -> str | None:
        """The one operand that is neither weight nor constant, if the node is of these kinds."""
        node = graph.node[index]
        data = [
            name
            for name in node.input
            if name and name not in weights and not (name in makers and graph.node[makers[name]].op_type == "Constant")
        ]
        return data[0] if node.op_type in kinds and len(data) == 1 else None

    ends: set[int] = set()
    tensor = graph.input[0].name
    while len(takers.get(tensor, [])) == 1 and chained(takers[tensor][0], _BEFORE):
        ends.add(takers[tensor][0])
        tensor = graph.node[takers[tensor][0]].output[0]
    step: str | None = graph.output[0].name
    while step in makers and (source := chained(makers[step], _BEHIND)) is not None:
        ends.add(makers[step])
        step = source
    return ends
