"""The GPU architectures that TensorRT for RTX builds for, without having one."""

from types import ModuleType
from typing import Any, Final

from model.engines.cuda.gpus import Gpu
from model.engines.libraries import Library, Runtime
from pipeline.errors import SetupError

CAPABILITIES: Final[tuple[str, ...]] = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""What TensorRT for RTX builds for unless told otherwise: everything it knows from Ampere on. 7.5 doubles the file."""
_TURING = "7.5"


def capabilities_for(gpu: Gpu | None) -> tuple[str, ...]:
    """What to build for unless told otherwise, on the machine of this GPU: on Turing for that too."""
    return (_TURING, *CAPABILITIES) if gpu is not None and gpu.compute_capability == _TURING else CAPABILITIES


def check_capability(library: Library, gpu: Gpu) -> None:
    """Refuse a GPU that TensorRT for RTX knows nothing of.

    Raises:
        SetupError: names what it runs on, and TensorRT proper.
    """
    if library.runtime is Runtime.TENSORRT_RTX and gpu.compute_capability not in capabilities_for(gpu):
        raise SetupError(
            f"TensorRT for RTX does not run on {gpu.name} (compute capability {gpu.compute_capability}); "
            f"it knows {_TURING}, {', '.join(CAPABILITIES)}.",
            "pip install tensorrt-cu12, then mattemill worker gpu --engine tensorrt",
        )


def set_capabilities(trt: ModuleType, config: Any, capabilities: tuple[str, ...]) -> None:
    """Tell the builder what to build for.

    Args:
        trt: the module.
        config: its `IBuilderConfig`.
        capabilities: such as "8.9"; at least one.

    Raises:
        SetupError: when it does not know one of them, or does not take them together.
    """
    known = {_number(name): member for name, member in trt.ComputeCapability.__members__.items() if name[:2] == "SM"}
    unknown = [one for one in capabilities if one not in known]
    if unknown or not capabilities:
        raise SetupError(
            f"TensorRT for RTX does not build for compute capability {', '.join(unknown) or 'nothing'}.",
            f"it knows {', '.join(known)}",
        )
    config.num_compute_capabilities = len(capabilities)
    for index, one in enumerate(capabilities):
        if not config.set_compute_capability(known[one], index):
            raise SetupError(f"TensorRT for RTX refuses compute capability {one} beside the others.")


def _number(name: str) -> str:
    """SM89 is 8.9, SM120 is 12.0."""
    return f"{name[2:-1]}.{name[-1]}"
