"""Read an ONNX file that somebody else made, and say what is wrong with it."""

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data
from onnx.inliner import inline_local_functions

from pipeline.errors import SetupError

OURS = "mattemill."
"""What the names of nodes and constants begin with that are added to a network."""
OLDEST_OPSET = 11  # from here on Clip takes its limits as inputs
_LARGEST = (1 << 31) - 1  # bytes in one protobuf message
_GIVE_ONNX = "give the .onnx file of the model"
_PYTORCH = (b"PK\x03\x04", b"\x80\x02", b"\x80\x04")  # zip archives and pickles, which torch.save writes


@dataclass(frozen=True, slots=True)
class Network:
    """A foreign network, whole in memory.

    Attributes:
        model: with external weights loaded and local functions inlined.
        sha256: of the file; when its weights lie in files beside it, of all of them one after the other.
    """

    model: onnx.ModelProto
    sha256: str

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return _opset(self.model)


def read_network(source: Path | bytes) -> Network:
    """Read a network.

    Args:
        source: an ONNX file, or the bytes of one that needs no files beside it.

    Raises:
        SetupError: when it cannot be read, is no ONNX file, is cut off, lacks files, is too old or too large.
    """
    folder = source.parent if isinstance(source, Path) else None
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise SetupError(f"{source!s} cannot be read: {error.strerror}.", _GIVE_ONNX) from error
    if data.startswith(_PYTORCH):
        raise SetupError(
            "The file is no ONNX network but looks like a PyTorch checkpoint.",
            "mattemill model export NETWORK --checkpoint FILE, for checkpoints of Mattemill's networks",
        )
    digest = hashlib.sha256(data)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, which has no types
        raise SetupError("The file is no ONNX network, or it is cut off.", _GIVE_ONNX) from error
    if not model.graph.node or not model.graph.output:
        raise SetupError("The file holds an empty ONNX network, or it is cut off.", _GIVE_ONNX)
    for location in _beside(model):
        digest.update(_load(folder, location))
    if folder is not None:
        load_external_data_for_model(model, str(folder))
    opset = _opset(model)
    if opset < OLDEST_OPSET:
        raise SetupError(
            f"The network uses ONNX opset {opset}, expected {OLDEST_OPSET} or newer.", "export it with a newer opset"
        )
    if model.ByteSize() > _LARGEST:
        raise SetupError("The network has more than 2 GB of weights.", "export it in FP16")
    if model.functions:
        model = inline_local_functions(model)
    return Network(model, digest.hexdigest())


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The graph's inputs without the weights, which old files list as inputs too."""
    weights = {tensor.name for tensor in (*graph.initializer, *(one.values for one in graph.sparse_initializer))}
    return [entry for entry in graph.input if entry.name not in weights]


def subgraphs(node: onnx.NodeProto) -> Iterable[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def reads(node: onnx.NodeProto) -> set[str]:
    """The names of the tensors that a node needs, those that only its bodies read among them."""
    wanted = set(node.input)
    for body in subgraphs(node):
        own = {entry.name for entry in (*body.input, *body.initializer)}
        for inner in body.node:
            wanted |= reads(inner) - own
            own.update(inner.output)
        wanted |= {entry.name for entry in body.output} - own
    return wanted - {""}


def needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that `output` depends on, each behind those that it depends on itself.

    ONNX demands that order, but runtimes do not, and some tools that convert to FP16 do not keep to it.
    """
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    wanted, open_ends = set[int](), [output]
    while open_ends:
        maker = makers.get(open_ends.pop())
        if maker is not None and maker not in wanted:
            wanted.add(maker)
            open_ends.extend(reads(nodes[maker]))
    waits = {index: {makers[name] for name in reads(nodes[index]) if name in makers} for index in wanted}
    followers: dict[int, list[int]] = {index: [] for index in wanted}
    for index, before in waits.items():
        for maker in before:
            followers[maker].append(index)
    # The first of all that can run comes next: a graph that is in order stays as it is.
    ready = [index for index, before in waits.items() if not before]
    heapq.heapify(ready)
    ordered = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(nodes[index])
        for follower in followers[index]:
            waits[follower].discard(index)
            if not waits[follower]:
                heapq.heappush(ready, follower)
    if len(ordered) < len(wanted):
        raise SetupError("The network's nodes depend on each other in a circle.", _GIVE_ONNX)
    return ordered


def _opset(model: onnx.ModelProto) -> int:
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _beside(model: onnx.ModelProto) -> list[str]:
    """The files that hold weights of a network, without repetition."""
    tensors = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    return sorted({str(ExternalDataInfo(tensor).location) for tensor in tensors})


def _load(folder: Path | None, location: str) -> bytes:
    """A file of weights; it must lie in the folder of the network or below."""
    inside = folder is not None and (folder / location).resolve().is_relative_to(folder.resolve())
    try:
        if folder is not None and inside:
            return (folder / location).read_bytes()
        why = "it would lie elsewhere"
    except OSError as error:
        why = str(error.strerror)
    raise SetupError(
        f"The network's weights are in another file, {location!r}, which cannot be read: {why}.",
        "put it beside the .onnx file",
    )
