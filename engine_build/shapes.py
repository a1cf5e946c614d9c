"""Follow the shapes through a network, node by node, for one shape of its input."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

Dims = tuple[int, ...]
_SMALL = 4096  # elements of a tensor whose values are followed too: shapes, scales, axes
_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Dropout"})


@dataclass(slots=True)
class Shapes:
    """What is known so far of the tensors of a network: shapes, and the values of small ones that do not depend on
    the picture.

    Args:
        model: the network; its nodes are handed in one by one, possibly changed.
        feeds: the shape of each input.
    """

    model: onnx.ModelProto
    feeds: Mapping[str, Dims]
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    values: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.model.graph.input:
            if entry.name in self.feeds:
                kind = entry.type.tensor_type.elem_type
                self.types[entry.name] = onnx.helper.make_tensor_type_proto(kind, self.feeds[entry.name])
        for tensor in self.model.graph.initializer:
            self.add_weight(tensor)

    def add_weight(self, tensor: onnx.TensorProto) -> None:
        """Make an initializer known."""
        self.types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        if int(np.prod(tensor.dims)) <= _SMALL:
            self.values[tensor.name] = numpy_helper.to_array(tensor)

    def dims(self, name: str) -> Dims | None:
        """The shape of a tensor, None when it is not known."""
        kind = self.types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None

    def step(self, node: onnx.NodeProto) -> None:
        """Learn the outputs of a node whose inputs are known; what cannot be told stays unknown."""
        if self._evaluate(node):
            return
        schema = _schema(node, self.model.opset_import)
        if schema is None:
            return
        types = {name: self.types[name] for name in node.input if name in self.types}
        data = {
            name: numpy_helper.from_array(np.ascontiguousarray(self.values[name]), name)
            for name in node.input
            if name in self.values
        }
        try:
            inferred = infer_node_outputs(
                schema, node, types, data, opset_imports=list(self.model.opset_import), ir_version=self.model.ir_version
            )
        except Exception:  # noqa: BLE001 - whatever the node is, its outputs are unknown then
            return
        self.types.update(inferred)

    def _evaluate(self, node: onnx.NodeProto) -> bool:
        """Compute a node of known values, such as a step in the arithmetic of shapes."""
        if node.op_type == "Shape":
            dims = self.dims(node.input[0])
            if dims is None:
                return False
            start = next((entry.i for entry in node.attribute if entry.name == "start"), 0)
            end = next((entry.i for entry in node.attribute if entry.name == "end"), None)
            self._keep(node.output[0], np.array(dims[start:end], np.int64))
            return True
        if node.op_type in _RANDOM or any(name and name not in self.values for name in node.input):
            return False
        try:
            # As a model, because a bare node would run as of the newest opset.
            given = {name: self.values[name] for name in node.input if name}
            entries = [onnx.helper.make_value_info(name, self.types[name]) for name in given]
            results = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
            graph = onnx.helper.make_graph([node], "one", entries, results)
            alone = onnx.helper.make_model(graph, opset_imports=list(self.model.opset_import), ir_version=8)
            outputs = ReferenceEvaluator(alone).run(None, given)
        except Exception:  # noqa: BLE001 - an operator that the evaluator lacks
            return False
        for name, value in zip(node.output, outputs, strict=True):
            self._keep(name, np.asarray(value))
        return True

    def _keep(self, name: str, value: NDArray[np.generic]) -> None:
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        self.types[name] = onnx.helper.make_tensor_type_proto(kind, value.shape)
        if value.size <= _SMALL:
            self.values[name] = value


def follow(model: onnx.ModelProto, feeds: Mapping[str, Dims]) -> Iterator[tuple[onnx.NodeProto, Shapes]]:
    """Each node of the network in turn, with what is known once it has run."""
    shapes = Shapes(model, feeds)
    for node in model.graph.node:
        shapes.step(node)
        yield node, shapes


def _schema(node: onnx.NodeProto, opsets: Sequence[onnx.OperatorSetIdProto]) -> "onnx.defs.OpSchema | None":
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = next((entry.version for entry in opsets if entry.domain in (domain, node.domain)), None)
    if version is None:
        return None
    try:
        return onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:  # an operator of somebody's own
        return None
