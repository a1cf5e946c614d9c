"""`python -m producer.commands`: what the console script `mattemill` runs."""

import os
import sys
from typing import NoReturn

SETUP, INTERRUPTED = 2, 130


def main() -> NoReturn:
    """The console script: whatever ends a command is one sentence and an exit code, never a traceback."""
    # ONNX Runtime's own wheels report use to their maker. What is done with a user's pictures is the user's alone.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        # Here, and not above: the imports take half a second, in which Ctrl-C must be answered too.
        from producer.commands.cli import run

        sys.exit(run())
    except KeyboardInterrupt:
        print("mattemill: stopped by Ctrl-C.", file=sys.stderr)  # noqa: T201 - click may not be there yet
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
