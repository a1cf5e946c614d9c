"""Wrap a foreign matting or saliency network into the contract of every engine: uint8 photos in, uint8 alpha out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from engine_build.batch import BATCH, Freed, free_batch
from engine_build.network import OURS, Network, inputs_of, needed, read_network, reads
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

INPUT, OUTPUT = "images", "alpha"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SQUEEZE_AXES_INPUT = 13  # from here on Squeeze takes its axes as an input
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)

RGB = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a network expects and what it gives.

    Attributes:
        mean: of R, G, B, for pixels in 0..1; the network takes (pixel - mean) / std.
        std: of R, G, B, for pixels in 0..1.
        output: name of the output that is wanted; None takes the first.
        sigmoid: the output is logits that a sigmoid makes probabilities of.
    """

    mean: RGB = IMAGENET_MEAN
    std: RGB = IMAGENET_STD
    output: str | None = None
    sigmoid: bool = False


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A network in the contract.

    Attributes:
        model: the serialised model.onnx.
        core: the network as it was, for batch 1, with nothing but the wanted output.
        freed: what was changed to open its batch.
    """

    model: bytes
    core: onnx.ModelProto
    freed: Freed


def wrap(
    source: Path | bytes,
    *,
    input_size: SizeBucket,
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
) -> bytes:
    """Wrap a network whose first output is a probability, for one size; see `wrap_network`.

    Raises:
        SetupError: when the source is no ONNX file or does not fit.
    """
    return wrap_network(read_network(source), Recipe(mean, std), (input_size,)).model


def wrap_network(network: Network, recipe: Recipe, sizes: Sequence[SizeBucket]) -> Wrapped:
    """Put normalising before a network and quantising behind it, and free its batch dimension.

    The result takes `images`, uint8 [N, H, W, 3] RGB, any N >= 1, and gives `alpha`, uint8 [N, H, W]. Inside: Cast,
    (x / 255 - mean) / std, NHWC to NCHW, the network, its wanted output, a sigmoid where asked for, clipped to 0..1,
    times 255, rounded. The other outputs and the nodes that only feed them are gone. H and W are fixed when there is
    one size, open when there are several. The same source gives the same bytes.

    Two steps of many upstream scripts (such as u2net_test.py of github.com/xuebinqin/U-2-Net) are left out on purpose:
    they divide a photo by its own maximum, but a dark photo must stay dark; they stretch every output to 0..1, but a
    photo without a subject must stay empty.

    Args:
        network: one float input [1 or open, 3, H, W]; the wanted output [N, 1, H, W] or [N, H, W].
        recipe: what it expects and gives.
        sizes: the sizes in pixels that it is to run at.

    Raises:
        SetupError: when the network is not shaped like that.
    """
    core = _core(network.model, recipe.output)
    entrance, exit_ = _ends(core.graph, sizes)
    freed = free_batch(core, sizes[0])
    graph = freed.model.graph
    weights = {name for node in graph.node for name in reads(node)}
    before, constants = _before(entrance, recipe)
    after, more = _after(exit_, recipe.sigmoid, network.opset)
    height, width = (sizes[0].height, sizes[0].width) if len(sizes) == 1 else ("H", "W")
    # A graph made anew leaves behind value_info, whose shapes still say batch 1.
    wrapped = helper.make_graph(
        [*before, *graph.node, *after],
        "mattemill",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [BATCH, height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.UINT8, [BATCH, height, width])],
        [tensor for tensor in graph.initializer if tensor.name in weights]
        + [numpy_helper.from_array(np.asarray(value), OURS + name) for name, value in {**constants, **more}.items()],
        sparse_initializer=[one for one in graph.sparse_initializer if one.values.name in weights],
    )
    result = helper.make_model(
        wrapped,
        opset_imports=list(network.model.opset_import),
        ir_version=max(network.model.ir_version, 4),  # before 4 every weight had to be an input too
        producer_name="mattemill",
    )
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        at = ", ".join(str(size) for size in sizes)
        raise SetupError(
            f"The network cannot be wrapped for {at}: {str(error).splitlines()[0].rstrip('.')}."
        ) from error
    return Wrapped(result.SerializeToString(deterministic=True), core, freed)


def fixed_sides(network: Network) -> tuple[int, int]:
    """H and W in pixels that the network is fixed to; 0 where it takes any.

    Raises:
        SetupError: when it takes no images, channels first.
    """
    if is_wrapped(network):
        _, height, width, _ = _dims(inputs_of(network.model.graph)[0])
    else:
        _, _, height, width = _dims(_entrance(network.model.graph))
    return height, width


def is_wrapped(network: Network) -> bool:
    """Whether a network fulfils the contract as it is."""
    inputs, outputs = inputs_of(network.model.graph), network.model.graph.output
    ends = [(end.name, end.type.tensor_type.elem_type, len(_dims(end))) for end in (*inputs, *outputs)]
    return ends == [(INPUT, TensorProto.UINT8, 4), (OUTPUT, TensorProto.UINT8, 3)] and _dims(inputs[0])[0] == 0


def _before(entrance: onnx.ValueInfoProto, recipe: Recipe) -> tuple[list[onnx.NodeProto], dict[str, object]]:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] float as the network wants it."""
    scale = 1.0 / (255.0 * np.asarray(recipe.std, np.float64))
    shift = -np.asarray(recipe.mean, np.float64) / np.asarray(recipe.std, np.float64)
    half = entrance.type.tensor_type.elem_type == TensorProto.FLOAT16
    last = f"{OURS}planes" if half else entrance.name
    nodes = [
        # TensorRT takes uint8 only where it feeds a Cast directly.
        helper.make_node("Cast", [INPUT], [f"{OURS}float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{OURS}float", f"{OURS}scale"], [f"{OURS}scaled"]),
        helper.make_node("Add", [f"{OURS}scaled", f"{OURS}shift"], [f"{OURS}normalised"]),
        helper.make_node("Transpose", [f"{OURS}normalised"], [last], perm=[0, 3, 1, 2]),
    ]
    if half:
        nodes.append(helper.make_node("Cast", [last], [entrance.name], to=TensorProto.FLOAT16))
    return nodes, {"scale": scale.astype(np.float32), "shift": shift.astype(np.float32)}


def _after(exit_: onnx.ValueInfoProto, sigmoid: bool, opset: int) -> tuple[list[onnx.NodeProto], dict[str, object]]:
    """[N, 1, H, W] or [N, H, W] float -> [N, H, W] uint8."""
    constants: dict[str, object] = {name: np.float32(value) for name, value in _LEVELS.items()}
    nodes: list[onnx.NodeProto] = []
    at = exit_.name

    def step(kind: str, result: str, *operands: str, **attributes: Any) -> None:
        nonlocal at
        name = result if result == OUTPUT else OURS + result
        nodes.append(helper.make_node(kind, [at, *(OURS + operand for operand in operands)], [name], **attributes))
        at = name

    if exit_.type.tensor_type.elem_type == TensorProto.FLOAT16:
        step("Cast", "single", to=TensorProto.FLOAT)
    if sigmoid:
        step("Sigmoid", "probability")
    step("Clip", "clipped", "zero", "one")
    step("Mul", "levels", "white")
    step("Add", "rounded", "half")
    if len(exit_.type.tensor_type.shape.dim) == 4:
        if opset >= _SQUEEZE_AXES_INPUT:
            constants["axis"] = np.array([1], np.int64)
            step("Squeeze", "flat", "axis")
        else:
            step("Squeeze", "flat", axes=[1])
    step("Cast", OUTPUT, to=TensorProto.UINT8)
    return nodes, constants


_LEVELS: Final = {"zero": 0.0, "one": 1.0, "white": 255.0, "half": 0.5}


def _core(source: onnx.ModelProto, wanted: str | None) -> onnx.ModelProto:
    """A copy with the wanted output alone, with only what that needs, its names out of the way of ours."""
    names = [entry.name for entry in source.graph.output]
    if wanted is not None and wanted not in names:
        raise SetupError(f"The network has no output {wanted!r}.", f"its outputs: {', '.join(names)}")
    core = onnx.ModelProto()
    core.CopyFrom(source)
    graph = core.graph
    chosen = graph.output[names.index(wanted) if wanted is not None else 0]
    _keep(graph.output, [chosen])
    _keep(graph.node, needed(graph.node, chosen.name))
    inputs = {entry.name for entry in inputs_of(graph)}
    _keep(graph.input, [entry for entry in graph.input if entry.name in inputs])
    used = {name for node in graph.node for name in reads(node)}
    _keep(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    if not graph.output[0].type.tensor_type.HasField("shape"):
        inferred = onnx.shape_inference.infer_shapes(core).graph.output[0]
        graph.output[0].CopyFrom(inferred)
    taken = {name for node in graph.node for name in (*reads(node), *node.output)}
    if taken & {INPUT, OUTPUT} or any(name.startswith(OURS) for name in taken):
        core = compose.add_prefix(core, "network.")
    return core


def _keep(field: Any, entries: Sequence[object]) -> None:  # protobuf's repeated fields have no types
    del field[:]
    field.extend(entries)


def _entrance(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    """The network's one input, which takes images, channels first."""
    inputs = inputs_of(graph)
    if len(inputs) != 1:
        raise SetupError(
            f"The network has {len(inputs)} inputs ({', '.join(one.name for one in inputs)}), expected one.",
            "networks that take a trimap or an earlier frame as well cannot be used",
        )
    got = _dims(inputs[0])
    is_float = inputs[0].type.tensor_type.elem_type in _FLOATS
    if is_float and len(got) == 4 and got[3] == 3 and got[1] != 3:
        raise SetupError(
            f"The network takes {got}, channels last; expected [1, 3, H, W].",
            "convert it with channels first, such as tf2onnx with --inputs-as-nchw",
        )
    if not is_float or len(got) != 4 or got[0] not in (0, 1) or got[1] not in (0, 3):
        raise SetupError(f"The network's input is {_kind(inputs[0])} {got}, expected FLOAT [1, 3, H, W].")
    return inputs[0]


def _ends(graph: onnx.GraphProto, sizes: Sequence[SizeBucket]) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """The network's one input and its output, after checking both; an open dimension, 0, fits anything."""
    entry, exit_ = _entrance(graph), graph.output[0]
    shape = _dims(exit_)
    for size in sizes:
        expected = [1, 3, size.height, size.width]
        if not _fits(_dims(entry), expected):
            raise SetupError(f"The network's input is {_kind(entry)} {_dims(entry)}, expected FLOAT {expected}.")
        expected = [1, size.height, size.width] if len(shape) == 3 else [1, 1, size.height, size.width]
        if exit_.type.tensor_type.elem_type not in _FLOATS or not _fits(shape, expected):
            raise SetupError(
                f"The network's output {exit_.name} is {_kind(exit_)} {shape}, expected FLOAT {expected}.",
                "choose another output with --output, if the network has one",
            )
    return entry, exit_


def _fits(got: Sequence[int], expected: Sequence[int]) -> bool:
    return len(got) == len(expected) and all(g in (0, e) for g, e in zip(got, expected, strict=True))


def _kind(entry: onnx.ValueInfoProto) -> str:
    return str(TensorProto.DataType.Name(entry.type.tensor_type.elem_type))


def _dims(entry: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in entry.type.tensor_type.shape.dim]  # 0: open
