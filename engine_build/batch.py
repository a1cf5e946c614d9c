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
QUANTISES = "DynamicQuantizeLinear"
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
    each with the elements it had alone. A Resize to constant sizes takes dimension 0 from its input instead; a constant
    that is joined to the one image is joined to each. Anything else stays as it is; whether the network still computes
    the same is for `engine_build.prove` to see.

    Args:
        model: float input [1 or open, 3, H, W], nothing but the wanted output and what it needs.
        size: H and W to follow the shapes with.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    entry = inputs_of(graph)[0]
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
        self._axis = {start: 0}  # the one dimension in which a tensor holds one image after the other
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
        elif node.op_type == "Concat":
            steps = self._concat(node)
        if steps != [node]:
            self.changed.append(_called(node))
        for step in steps:
            self._shapes.step(step)
            self._follow(step)
        return steps

    def _is_constant(self, node: onnx.NodeProto, operand: int) -> bool:
        """Whether images, one after the other in dimension 0, meet a shape that knows nothing of them."""
        name = node.input[operand]
        return self._axis.get(node.input[0]) == 0 and name in self._batch_free and name in self._shapes.values

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
        rest = self._constant(sizes[1:], f"{name}.rest")
        return [*self._batch_before(node.input[0], rest, name), _with_input(node, 3, f"{name}.sizes")]

    def _concat(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Give every image a copy of what is joined to each, such as a class token."""
        batch = next((name for name in node.input if self._axis.get(name) == 0), None)
        if batch is None or self._shapes.dims(batch) is None or self._works_on_batch(node):
            return [node]
        steps: list[onnx.NodeProto] = []
        joined = node
        for operand, single in enumerate(node.input):
            dims = self._shapes.dims(single)
            if single in self._batch_free and dims and dims[0] == 1 and (self._shapes.dims(batch) or (0,))[0] == _MANY:
                name = f"{OURS}{node.output[0]}.{operand}"
                rest = self._constant(dims[1:], f"{name}.rest")
                steps += self._batch_before(batch, rest, name)
                steps.append(helper.make_node("Expand", [single, f"{name}.sizes"], [f"{name}.all"]))
                joined = _with_input(joined, operand, f"{name}.all")
        return [*steps, joined]

    def _batch_before(self, batch: str, rest: str, name: str) -> list[onnx.NodeProto]:
        """Nodes that make the shape NAME.sizes: dimension 0 of `batch`, then `rest`."""
        zero, one = self._constant([0], f"{name}.zero"), self._constant([1], f"{name}.one")
        return [
            helper.make_node("Shape", [batch], [f"{name}.shape"]),
            helper.make_node("Slice", [f"{name}.shape", zero, one], [f"{name}.batch"]),
            helper.make_node("Concat", [f"{name}.batch", rest], [f"{name}.sizes"], axis=0),
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
        outputs = [(name, self._shapes.dims(name)) for name in node.output if name]
        if not self._reorders(node):
            for name, dims in outputs:
                carrying = _carrying(dims)
                if len(carrying) == 1:
                    self._axis[name] = carrying[0]
        known: list[Dims] = [dims for _, dims in outputs if dims is not None]
        took = any(name in self._axis for name in given)
        if took and node.op_type == QUANTISES and not self.lost:
            self.lost = f"{_called(node)} takes one range of values for the whole batch"
        kept = len(known) < len(outputs) or any(_carrying(dims) for dims in known)
        if took and not kept and not self.lost:
            self.lost = f"{_called(node)} gives {list(known[0]) if known else '?'} whatever the batch"

    def _reorders(self, node: onnx.NodeProto) -> bool:
        """Whether the images may lie in another order, or mixed, behind a node."""
        if node.op_type in _REORDER or self._works_on_batch(node):
            return True
        if any(self._carries(name) and name not in self._axis for name in node.input if name):
            return True
        axis, before = self._axis.get(node.input[0], 0), self._shapes.dims(node.input[0])
        if node.op_type in ("Reshape", "Flatten") and axis:
            # Only what lies behind the batch may be cut anew.
            after = self._shapes.dims(node.output[0])
            return before is None or after is None or before[:axis] != after[:axis]
        return False

    def _works_on_batch(self, node: onnx.NodeProto) -> bool:
        """Whether a node works along the dimension that holds the images."""
        along = next((entry.i for entry in node.attribute if entry.name == "axis"), None)
        if along is None:
            return False
        for name in node.input:
            dims = self._shapes.dims(name)
            if name in self._axis and dims is not None and self._axis[name] in (along, along + len(dims)):
                return True
        return False

    def _carries(self, name: str) -> bool:
        return bool(_carrying(self._shapes.dims(name)))


def _carrying(dims: Dims | None) -> list[int]:
    """The dimensions that the batch goes into."""
    return [axis for axis, side in enumerate(dims or ()) if side and side % _MANY == 0]


def _with_input(node: onnx.NodeProto, operand: int, name: str) -> onnx.NodeProto:
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.input[operand] = name
    return changed


def _called(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"
