"""An engine file as tests need one: small, and never given to a real TensorRT."""

import hashlib
from dataclasses import replace
from pathlib import Path

from model.engines.plans import Plan
from model.engines.sidecar import Parity, Profile, Sidecar
from pipeline.ids import SizeBucket

DATA = b"an engine file"

SIDECAR = Sidecar(
    model="tiny",
    weights="00" * 32,
    onnx_sha256="11" * 32,
    network_sha256="22" * 32,
    plan_sha256=hashlib.sha256(DATA).hexdigest(),
    runtime="tensorrt",
    runtime_version="11.4.0.106",
    parser_version="0.2.0",
    cuda="13.0",
    driver="580.65.06",
    gpu="NVIDIA L4",
    compute_capabilities=("8.9",),
    precision="fp16",
    profiles=(Profile(SizeBucket(32, 48), 1, 2, 4),),
    tensors={"images": ("uint8", (-1, 32, 48, 3)), "alpha": ("uint8", (-1, 32, 48))},
    flags={"strongly_typed": True, "optimization_level": 3, "workspace_bytes": None},
    parity=Parity(2, 1, 0.01),
    seconds=1.5,
    built="2026-11-24T07:00:00+00:00",
    version="0.1.0",
)


def plan(path: Path = Path("tiny.engine"), **changes: object) -> Plan:
    """A plan whose sidecar differs from the usual one by `changes`."""
    return Plan(path, replace(SIDECAR, **changes), DATA)  # type: ignore[arg-type]
