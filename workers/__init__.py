"""The processes that do the work, and the local stack that runs them on one machine."""

import pipeline  # noqa: F401 - before structlog
