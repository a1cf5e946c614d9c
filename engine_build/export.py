"""Export a PyTorch network to the contract of every engine: uint8 photos in, uint8 alpha out, any batch, any sides."""

import copy
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from engine_build.batch import BATCH
from engine_build.census import count
from engine_build.checkpoint import load_network, parse_checkpoint, read_checkpoint, write_half
from engine_build.prove import pictures, prove_batch, run_contract
from engine_build.wrap import INPUT, OUTPUT
from model.card import Card, write_card
from model.catalogue import SHIPPED, ModelSpec, shipped
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

Precision = Literal["fp32", "fp16"]
STEP: Final = 32  # sides are multiples of it: five times a half and a double
OPSET: Final = 17
_TRACED: Final = (2, 64, 96, 3)  # two images, and sides that differ, so that no dimension is taken for another
_USUAL_SIZE: Final = SizeBucket(512, 512)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be exported.

    Attributes:
        network: its name, see `model.networks`; or that of a shipped model.
        precision: of the network's inside; normalising, sigmoid and rounding are FP32 in both.
        checkpoint: the weights; None takes the shipped ones.
        name: of the model that comes out; "" makes one of network and precision.
        sizes: that it is to run at; () takes those of the shipped model, or 512x512.
        licence: of the weights.
        origin: where they come from.
    """

    network: str
    precision: Precision = "fp32"
    checkpoint: Path | None = None
    name: str = ""
    sizes: tuple[SizeBucket, ...] = ()
    licence: str = ""
    origin: str = ""


def export_model(order: Order, home: Path, report: Callable[[str], None], to: Path | None = None) -> ModelSpec:
    """Export a network with its weights, and install it.

    Args:
        order: what is wanted.
        home: MATTEMILL_HOME.
        report: takes one sentence for the user.
        to: a folder that takes NAME.onnx, its card NAME.json and NAME.safetensors, instead of the store: what
            Mattemill ships is made like that.

    Raises:
        SetupError: when network or weights cannot be had, do not fit, or nothing can be written.
    """
    card = shipped().get(order.network)
    network_name = str(card.made.get("network", order.network)) if card else order.network
    file = order.checkpoint or _shipped_weights(order.network)
    sizes = order.sizes or (card.spec.size_buckets if card else (_USUAL_SIZE,))
    for size in sizes:
        if size.height % STEP or size.width % STEP:
            raise SetupError(f"{network_name} cannot run at {size}.", f"choose sides that are multiples of {STEP}")
    name = order.name or (f"{order.network}-fp16" if order.precision == "fp16" else order.network)
    store = ModelStore(home)
    if to is None:
        store.check_name(name)
    checkpoint = read_checkpoint(file)
    network = load_network(network_name, checkpoint)
    small = b""
    if to is not None:
        # What is passed on is the small file: exported again, it must give the same model.
        small = write_half(network)
        checkpoint = parse_checkpoint(small, "NAME.safetensors")
        network = load_network(network_name, checkpoint)
    model = export(network, order.precision)
    report(f"Exported {network_name}, {order.precision}: {_compare(network, model, sizes)}")
    made = {"network": network_name, "precision": order.precision, "sha256": checkpoint.sha256}
    ours = card is not None and order.checkpoint is None
    spec = ModelSpec(
        name,
        _identity(made, sizes),
        sizes,
        order.licence or (card.spec.licence if card and ours else "unknown"),
        order.origin or (card.spec.origin if card and ours else file.name),
    )
    if to is None:
        report(f"{name} is installed: {store.install(spec, model, count(model, sizes), {**made, 'file': file.name})}")
    else:
        _write_package(spec, model, small, made, to)
        report(f"Written: {to / name}.onnx, .json, .safetensors")
    return spec


def export(network: nn.Module, precision: Precision) -> bytes:
    """The network as an ONNX file that fulfils the contract; the same weights give the same bytes.

    Inside: Cast, x / 255, NHWC to NCHW, the network, and in FP32 again sigmoid, times 255, plus 0.5, Clip, Squeeze,
    Cast. FP16 is a graph of FP16 types between two Casts (a strongly typed network, as TensorRT wants it), with the
    network's normalising left in FP32.

    Args:
        network: gives logits [N, 1, H, W] for float [N, 3, H, W] in 0..1; its `normalise` comes first.
        precision: "fp32" or "fp16".
    """
    half = precision == "fp16"
    contract = _Contract(_halved(network) if half else network).eval()
    with tempfile.TemporaryDirectory(prefix="mattemill-") as folder, warnings.catch_warnings():
        file = Path(folder) / "model.onnx"
        # The exporter of torch.export needs onnxscript, writes Shape nodes for every interpolation and folds no
        # batch norm; this one is announced to go, and says so at every call.
        warnings.simplefilter("ignore", DeprecationWarning)
        # A network may look at its number of channels, which no input changes.
        warnings.filterwarnings("ignore", "Converting a tensor to a Python boolean")
        torch.onnx.export(
            contract,
            (torch.zeros(_TRACED, dtype=torch.uint8),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={name: {0: BATCH, 1: "H", 2: "W"} for name in (INPUT, OUTPUT)},
        )
        model = _tidied(onnx.load(file))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _compare(network: nn.Module, model: bytes, sizes: tuple[SizeBucket, ...]) -> str:
    """How far the exported model is from the network, and a batch of it from its images: the end of a sentence.

    Raises:
        SetupError: when a batch gives other results.
    """
    images = pictures(1, sizes[0])
    rgb = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = torch.sigmoid(network(rgb)).numpy()[0, 0] * 255
    worst = float(np.abs(expected - run_contract(model, images)[0]).max())
    batch = prove_batch(model, sizes)
    return f"up to {worst:.2f} of 255 from PyTorch (rounding: 0.50); a batch {batch} of 255 from its images"


class _Contract(nn.Module):
    """A network between uint8 images and uint8 alpha."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        rgb = (images.float() * (1 / 255)).permute(0, 3, 1, 2)  # [N, 3, H, W] float32
        probability = torch.sigmoid(self.network(rgb).float())  # [N, 1, H, W]
        levels = (probability * 255 + 0.5).clamp(0, 255)
        return levels.squeeze(1).to(torch.uint8)  # [N, H, W]


class _NormaliseThenHalve(nn.Module):
    def __init__(self, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, rgb: Tensor) -> Tensor:
        out: Tensor = self.normalise(rgb).half()
        return out


def _halved(network: nn.Module) -> nn.Module:
    """A copy of the network in FP16 that takes FP32."""
    halved = copy.deepcopy(network)
    normalise = copy.deepcopy(network.get_submodule("normalise"))  # in FP32
    halved.half()
    halved.set_submodule("normalise", _NormaliseThenHalve(normalise))
    return halved


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what the exporter leaves behind: Identity nodes on weights, constants as nodes, comments."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            renamed[node.output[0]] = node.input[0]
            weights.add(node.output[0])
        elif node.op_type == "Constant":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            node.doc_string = ""
            nodes.append(node)
    for node in nodes:
        for index, name in enumerate(node.input):
            while name in renamed:
                name = renamed[name]
            node.input[index] = name
    graph = onnx.helper.make_graph(nodes, "mattemill", list(graph.input), list(graph.output), list(graph.initializer))
    return onnx.helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version, producer_name="mattemill"
    )


def _shipped_weights(name: str) -> Path:
    file = SHIPPED / f"{name}.safetensors"
    if not file.is_file():
        raise SetupError(f"No weights of {name} come with Mattemill.", "give some with --checkpoint")
    return file


def _identity(made: Mapping[str, object], sizes: tuple[SizeBucket, ...]) -> str:
    """What decides the alpha, for fingerprints."""
    parts = {**made, "sizes": [str(size) for size in sizes]}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write_package(spec: ModelSpec, model: bytes, small: bytes, made: Mapping[str, object], folder: Path) -> None:
    card = Card(spec, hashlib.sha256(model).hexdigest(), count(model, spec.size_buckets), made=made)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{spec.name}.onnx").write_bytes(model)
        (folder / f"{spec.name}.safetensors").write_bytes(small)
        (folder / f"{spec.name}.json").write_bytes(write_card(card))
    except OSError as error:
        raise SetupError(f"{folder} cannot be written: {error.strerror}.", "choose another folder with --to") from error
