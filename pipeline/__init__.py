"""What every process of Mattemill agrees on: messages, errors, settings, storage, ledger, log."""

import sys
from types import ModuleType

__version__ = "0.1.0"

if "rich" not in sys.modules:
    # structlog brings it for tracebacks on a console, 4 MB and 50 ms of every process, and does without where none is.
    sys.modules["rich"] = ModuleType("rich")
    import structlog  # noqa: F401

    del sys.modules["rich"]
