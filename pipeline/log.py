"""Structured logs: static event names, values as keywords; JSON unless on a terminal."""

import logging
import sys

import structlog

from pipeline.settings import Settings


def configure(settings: Settings, **bound: object) -> None:
    """Set up logging of this process, on standard error; `bound` stands on every line.

    Python's warnings and the loggers of libraries go the same way.
    """
    json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    level = getattr(logging, settings.log_level.upper())

    def bind(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        return {**bound, **event}  # not through context variables: threads start without them

    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        bind,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if json else structlog.processors.StackInfoRenderer(),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False) if json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("pipeline", "producer", "workers", "model", "engine_build", "__main__"):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)
