"""Free a network that was exported for one image from its batch of 1."""

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engine_build.network import OURS, inputs_of
from engine_build.shapes import Dims, Shapes
from pipeline.ids import SizeBucket

BATCH = "N"
_REORDER = frozenset(
    {"Tile", "Einsum", "Compress", "GatherND", "ScatterND", "GatherElements", "ScatterElements", "TopK"}
)
_MANY = 7919
"""The batch that shapes are followed with: a prime so large that a dimension it divides must carry the batch."""


@dataclass(frozen=True, slots=True)
class Freed:
    """A network whose batch is open.

    Attributes:
        model: the network.
        changed: nodes that had the batch of 1 in a constant, by name.
        lost: what seems to mix or drop the images of a batch; "" when nothing does. Only running it can tell for sure.
    """

    model: onnx.ModelProto
    changed: tuple[str, ...]
    lost: str


def free_batch(model: onnx.ModelProto, size: SizeBucket) -> Freed:
    """Open dimension 0 of the input, and of every constant shape behind it that says 1 where it means the batch.

    A Reshape is changed only where its result is provably the same for each image: the images must lie one after the
    other in dimension 0 of what it takes (followed from the input, node by node), and then they do so in its result,
    each with the elements it had alone. A Resize to constant sizes takes dimension 0 from its input instead. Anything
    else stays as it is; whether the network still computes the same is for `engine_build.prove` to see.

    Args:
        model: float input [1 or open, 3, H, W], nothing but the wanted output and what it needs.
        size: H and W to follow the shapes with.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    entry = inputs_of(graph)[0]
    if entry.type.tensor_type.shape.dim[0].dim_value == 0:
        return Freed(freed, (), "")
    entry.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]  # its shapes still say batch 1
    walk = _Walk(freed, entry.name, size)
    nodes = [step for node in graph.node for step in walk.free(node)]
    del graph.node[:]
    graph.node.extend(nodes)
    return Freed(freed, tuple(walk.changed), walk.lost)


class _Walk:
    """One way through the network with a large batch."""

    def __init__(self, model: onnx.ModelProto, start: str, size: SizeBucket) -> None:
        self._graph = model.graph
        self._opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self._shapes = Shapes(model, {start: (_MANY, 3, size.height, size.width)})
        self._in_order = {start}  # tensors that hold one image after the other in dimension 0
        self._batch_free = {tensor.name for tensor in model.graph.initializer}  # values that no batch goes into
        self.changed: list[str] = []
        self.lost = ""

    def free(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node, or what has to stand in its place."""
        steps = [node]
        if node.op_type == "Reshape" and self._is_constant(node, 1):
            steps = self._reshape(node)
        elif node.op_type == "Resize" and len(node.input) > 3 and self._is_constant(node, 3):
            steps = self._resize(node)
        if steps != [node]:
            self.changed.append(_called(node))
        for step in steps:
            self._shapes.step(step)
            self._follow(step)
        return steps

    def _is_constant(self, node: onnx.NodeProto, operand: int) -> bool:
        """Whether a batch of images, one after the other, meets a shape that knows nothing of it."""
        name = node.input[operand]
        return node.input[0] in self._in_order and name in self._batch_free and name in self._shapes.values

    def _reshape(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        source = self._shapes.dims(node.input[0])
        target = [int(side) for side in self._shapes.values[node.input[1]].ravel()]
        literal_zero = any(entry.name == "allowzero" and entry.i for entry in node.attribute)
        if source is None or not target or (literal_zero and 0 in target):
            return [node]
        alone = (source[0] // _MANY, *source[1:])
        if target[0] == 0 or (len(alone) < len(target) and 0 in target[len(alone) :]):
            return [node]
        sides = [alone[index] if side == 0 else side for index, side in enumerate(target)]
        if -1 in sides:
            rest = -prod(sides)
            if rest <= 0 or prod(alone) % rest:
                return [node]
            sides[sides.index(-1)] = prod(alone) // rest
        if prod(sides) != prod(alone) or target[0] == -1:
            return [node]
        if alone[0] == 1 and target[0] == 1 and not literal_zero:
            freed = [0, *target[1:]]  # as many as come in
        else:
            freed = [-1, *(side if side >= 0 else sides[index] for index, side in enumerate(target) if index)]
        return [self._with_constant(node, 1, freed)]

    def _resize(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        source, sizes = self._shapes.dims(node.input[0]), self._shapes.values[node.input[3]].ravel()
        if source is None or len(sizes) != len(source) or source[0] != _MANY or sizes[0] != 1:
            return [node]
        name = f"{OURS}{node.output[0]}"
        zero, one = self._constant([0], f"{name}.zero"), self._constant([1], f"{name}.one")
        return [
            helper.make_node("Shape", [node.input[0]], [f"{name}.shape"]),
            helper.make_node("Slice", [f"{name}.shape", zero, one], [f"{name}.batch"]),
            helper.make_node(
                "Concat", [f"{name}.batch", self._constant(sizes[1:], f"{name}.rest")], [f"{name}.sizes"], axis=0
            ),
            _with_input(node, 3, f"{name}.sizes"),
        ]

    def _with_constant(self, node: onnx.NodeProto, operand: int, value: list[int]) -> onnx.NodeProto:
        return _with_input(node, operand, self._constant(value, f"{OURS}{node.output[0]}.to"))

    def _constant(self, value: object, name: str) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, np.int64), name)
        self._graph.initializer.append(tensor)
        self._shapes.add_weight(tensor)
        self._batch_free.add(name)
        return name

    def _follow(self, node: onnx.NodeProto) -> None:
        """Note what a node does to the order of the images."""
        given = [name for name in node.input if name]
        if node.op_type in ("Shape", "Size"):
            if not any(self._carries(name) for name in given):
                self._batch_free.update(node.output)
            return
        if all(name in self._batch_free for name in given):
            self._batch_free.update(node.output)
            return
        mixed = any(self._carries(name) and name not in self._in_order for name in given)
        moved = node.op_type in _REORDER or self._works_on_batch(node)
        outputs = [(name, self._shapes.dims(name)) for name in node.output if name]
        for name, dims in outputs:
            if dims and dims[0] and dims[0] % _MANY == 0 and not mixed and not moved:
                self._in_order.add(name)
        known: list[Dims] = [dims for _, dims in outputs if dims is not None]
        took = any(name in self._in_order for name in given)
        kept = len(known) < len(outputs) or any(side % _MANY == 0 for dims in known for side in dims if side)
        if took and not kept and not self.lost:
            self.lost = f"{_called(node)} gives {list(known[0]) if known else '?'} whatever the batch"

    def _works_on_batch(self, node: onnx.NodeProto) -> bool:
        """Whether a node works along dimension 0 or puts another there."""
        if node.op_type == "Transpose":
            return _first_axis(node) != 0
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), None)
        dims = self._shapes.dims(node.input[0])
        return axis is not None and (axis == 0 or (dims is not None and axis == -len(dims)))

    def _carries(self, name: str) -> bool:
        dims = self._shapes.dims(name)
        return dims is not None and any(side and side % _MANY == 0 for side in dims)


def _with_input(node: onnx.NodeProto, operand: int, name: str) -> onnx.NodeProto:
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.input[operand] = name
    return changed


def _first_axis(node: onnx.NodeProto) -> int:
    """The axis that a Transpose puts first; without perm it turns the axes round."""
    return next((entry.ints[0] for entry in node.attribute if entry.name == "perm" and entry.ints), -1)


def _called(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"
