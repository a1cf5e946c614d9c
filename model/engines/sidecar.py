"""The JSON beside every engine file: what it was built from, with what, for which GPU, and what it takes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Final

from pipeline.ids import SizeBucket

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """What an engine is tuned for at one size bucket: images in a batch, at least, usually, at most."""

    size_bucket: SizeBucket
    smallest: int
    usual: int
    largest: int

    def shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """The three input shapes [N, H, W, 3]."""
        size = self.size_bucket
        return tuple((batch, size.height, size.width, 3) for batch in (self.smallest, self.usual, self.largest))


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the FP16 network, its roundings imitated on the processor, is from the model; in 255ths of alpha."""

    photos: int
    largest: int
    mean: float


@dataclass(frozen=True, slots=True)
class Sidecar:
    """All that is known of an engine file.

    Attributes:
        model: the model's name.
        weights: the model's weights, as in its card.
        onnx_sha256: of the model.onnx that it was built from.
        network_sha256: of the network that the builder was given.
        plan_sha256: of the engine file.
        runtime: "tensorrt" or "tensorrt-rtx".
        runtime_version: of the builder; the same version must run it.
        parser_version: of NVIDIA's ONNX parser.
        cuda: the newest CUDA that the driver has; "" where it was built without one.
        driver: of the machine that built it; "" likewise.
        gpu: name of the GPU that built it; "" likewise.
        compute_capabilities: GPU architectures that it runs on, such as "8.9".
        precision: "fp16" or "fp32".
        profiles: one for each size bucket.
        tensors: by name of the tensor its dtype and shape, -1 for an open side.
        flags: what the builder was told: optimization_level, workspace_bytes, strongly_typed.
        parity: None where it was not measured.
        seconds: that the builder took.
        built: when, ISO 8601, UTC.
        version: Mattemill's.
    """

    model: str
    weights: str
    onnx_sha256: str
    network_sha256: str
    plan_sha256: str
    runtime: str
    runtime_version: str
    parser_version: str
    cuda: str
    driver: str
    gpu: str
    compute_capabilities: tuple[str, ...]
    precision: str
    profiles: tuple[Profile, ...]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    flags: Mapping[str, object]
    parity: Parity | None
    seconds: float
    built: str
    version: str
    format: int = field(default=FORMAT)


def sidecar_entry(sidecar: Sidecar) -> dict[str, object]:
    """The sidecar as JSON knows it."""
    entry: dict[str, object] = {one.name: getattr(sidecar, one.name) for one in fields(Sidecar)}
    entry["compute_capabilities"] = list(sidecar.compute_capabilities)
    entry["profiles"] = [asdict(one) | {"size_bucket": str(one.size_bucket)} for one in sidecar.profiles]
    entry["tensors"] = {
        name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in sidecar.tensors.items()
    }
    entry["flags"] = dict(sidecar.flags)
    entry["parity"] = asdict(sidecar.parity) if sidecar.parity else None
    return entry


def write_sidecar(sidecar: Sidecar) -> bytes:
    """The file's content."""
    return (json.dumps(sidecar_entry(sidecar), indent=2) + "\n").encode()


def read_sidecar(data: bytes) -> Sidecar:
    """Read what `write_sidecar` wrote.

    Raises:
        ValueError: when it is something else, or of another format.
    """
    try:
        entry = json.loads(data)
        if entry["format"] != FORMAT:
            raise ValueError(f"it has format {entry['format']}, expected {FORMAT}")
        entry["compute_capabilities"] = tuple(str(one) for one in entry["compute_capabilities"])
        entry["profiles"] = tuple(
            Profile(**one | {"size_bucket": SizeBucket.parse(one["size_bucket"])}) for one in entry["profiles"]
        )
        entry["tensors"] = MappingProxyType(
            {str(name): (str(one["dtype"]), tuple(one["shape"])) for name, one in entry["tensors"].items()}
        )
        entry["flags"] = MappingProxyType(dict(entry["flags"]))
        entry["parity"] = Parity(**entry["parity"]) if entry["parity"] else None
        return Sidecar(**entry)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the sidecar cannot be read: {error}") from error
