"""What Mattemill calls of TensorRT's runtime: these classes and methods, and no others.

They are the same in `tensorrt` 10.12 to 11.4 and in TensorRT for RTX; the tests compare them with the real classes.
"""

from collections.abc import Sequence
from typing import Protocol

from model.engines.base import EngineError
from model.engines.libraries import Library
from model.engines.messages import Messages


class ExecutionContext(Protocol):
    """`IExecutionContext`: one optimization profile at work."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose a profile, on the stream."""
        ...

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Say how large the next batch is."""
        ...

    def infer_shapes(self) -> list[str]:
        """The tensors whose shape is not known yet."""
        ...

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """What a tensor will be shaped like."""
        ...

    def update_device_memory_size_for_shapes(self) -> int:
        """Bytes of scratch that the next batch needs, its shapes being known."""
        ...

    def set_device_memory(self, memory: int, size: int) -> None:
        """Lend it that scratch."""
        ...

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where a tensor lies on the device."""
        ...

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue the batch on the stream."""
        ...


class CudaEngine(Protocol):
    """`ICudaEngine`: a plan in GPU memory."""

    @property
    def num_io_tensors(self) -> int:
        """How many tensors go in or out."""
        ...

    @property
    def num_optimization_profiles(self) -> int:
        """How many profiles it was built with."""
        ...

    def get_tensor_name(self, index: int) -> str:
        """Name of a tensor that goes in or out."""
        ...

    def get_tensor_dtype(self, name: str) -> object:
        """A `DataType`."""
        ...

    def get_tensor_mode(self, name: str) -> object:
        """A `TensorIOMode`."""
        ...

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Sequence[int]]:
        """The smallest, the usual and the largest shape."""
        ...

    def create_execution_context(self, strategy: object) -> ExecutionContext | None:
        """A context; None when it cannot be made."""
        ...


class RuntimeObject(Protocol):
    """`Runtime`: makes engines of plans."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
        """The engine; None when the plan cannot run here."""
        ...


class Api(Protocol):
    """The module, as far as the engine loop needs it."""

    def runtime(self) -> RuntimeObject:
        """A runtime.

        Raises:
            EngineError: when it cannot start.
        """
        ...

    def memory_is_ours(self) -> object:
        """The allocation strategy under which a context takes its device memory from us."""
        ...

    def is_image(self, dtype: object) -> bool:
        """Whether a tensor is uint8."""
        ...

    def is_input(self, mode: object) -> bool:
        """Whether a tensor goes in."""
        ...

    def complaint(self) -> str:
        """What the library said went wrong since the last call."""
        ...

    def lacks_memory(self) -> bool:
        """Whether that was a lack of device memory."""
        ...


class LoadedApi:
    """The `Api` of a loaded library.

    Args:
        library: from `load_library`.
    """

    def __init__(self, library: Library) -> None:
        self._module = library.module
        self._messages = Messages(library.module)

    def runtime(self) -> RuntimeObject:
        """See `Api.runtime`."""
        try:
            made: RuntimeObject = self._module.Runtime(self._messages.logger)
        except TypeError as error:  # what the bindings make of a null pointer
            raise EngineError(f"TensorRT's runtime cannot start: {self.complaint()}.") from error
        return made

    def memory_is_ours(self) -> object:
        """See `Api.memory_is_ours`."""
        strategy: object = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        return strategy

    def is_image(self, dtype: object) -> bool:
        """See `Api.is_image`."""
        return bool(dtype == self._module.DataType.UINT8)

    def is_input(self, mode: object) -> bool:
        """See `Api.is_input`."""
        return bool(mode == self._module.TensorIOMode.INPUT)

    def complaint(self) -> str:
        """See `Api.complaint`."""
        return self._messages.take()

    def lacks_memory(self) -> bool:
        """See `Api.lacks_memory`."""
        return self._messages.tell_of_memory()
