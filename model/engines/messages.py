"""What TensorRT says while it works: kept, so that a failure can be explained, and silent otherwise."""

from collections import deque
from types import ModuleType
from typing import Any

_KEPT = 20
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "insufficient memory", "cudaerrormemoryallocation")


class Messages:
    """The newest errors and warnings of one logger.

    Args:
        module: what `import tensorrt` gives.

    Attributes:
        logger: what TensorRT's classes take as their logger; it must live as long as they do.
    """

    def __init__(self, module: ModuleType) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT)
        severity = module.ILogger.Severity
        errors = (severity.INTERNAL_ERROR, severity.ERROR)

        def begin(logger: object) -> None:
            module.ILogger.__init__(logger)

        def log(logger: object, level: object, message: str) -> None:
            if level in errors:
                self._errors.append(" ".join(message.split()))

        self.logger: Any = type("Log", (module.ILogger,), {"__init__": begin, "log": log})()

    def take(self) -> str:
        """The errors since the last call, the first one first; "it gives no reason" when there are none."""
        said = list(dict.fromkeys(self._errors))
        self._errors.clear()
        return "; ".join(said[:3]).rstrip(".") or "it gives no reason"

    def tell_of_memory(self) -> bool:
        """Whether one of the errors is a lack of device memory. They stay."""
        return any(word in message.lower() for message in self._errors for word in _OUT_OF_MEMORY)
