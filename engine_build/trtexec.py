"""The command of NVIDIA's own tool that builds the same engine."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from model.engines.libraries import Runtime
from model.engines.sidecar import Profile

_TOOL = {Runtime.TENSORRT: "trtexec", Runtime.TENSORRT_RTX: "tensorrt_rtx"}


def trtexec_line(
    runtime: Runtime,
    network: Path,
    engine: Path,
    profiles: Sequence[Profile],
    optimization_level: int,
    workspace_bytes: int | None,
    timing_cache: Path | None,
) -> str:
    """One line for a shell.

    Args:
        runtime: whose tool.
        network: the ONNX file that the builder was given.
        engine: the engine file to write.
        profiles: in their order.
        optimization_level: 0 to 5.
        workspace_bytes: None: no limit but the GPU's memory.
        timing_cache: None: none.
    """
    words = [_TOOL[runtime], f"--onnx={network}"]
    if runtime is Runtime.TENSORRT:
        words.append("--stronglyTyped")
    for index, profile in enumerate(profiles):
        words += [f"--profile={index}"] if len(profiles) > 1 else []
        for option, shape in zip(("min", "opt", "max"), profile.shapes(), strict=True):
            words.append(f"--{option}Shapes=images:{'x'.join(map(str, shape))}")
    words.append(f"--builderOptimizationLevel={optimization_level}")
    if workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{workspace_bytes >> 20}")  # MiB
    if timing_cache is not None:
        words.append(f"--timingCacheFile={timing_cache}")
    words += ["--skipInference", f"--saveEngine={engine}"]
    return shlex.join(words)
