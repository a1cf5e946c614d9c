"""Structured logs: static event names, values as keywords; JSON unless on a terminal."""

import atexit
import logging
import sys
import threading
from types import TracebackType

import structlog

from pipeline.repeats import Repeats
from pipeline.settings import Settings

_LEVELS = {"warning": logging.WARNING, "error": logging.ERROR, "exception": logging.ERROR}


def configure(settings: Settings, **bound: object) -> None:
    """Set up logging of this process, on standard error; `bound` stands on every line.

    Python's warnings and the loggers of libraries go the same way, and so does, as JSON, what nobody caught. Of our
    own, one warning is written so many times a minute (MATTEMILL_LOG_REPEATS); how many more there were is said once.
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
    sampled: list[structlog.types.Processor] = []
    if settings.log_repeats:
        repeats = Repeats(settings.log_repeats, _say_left_out)
        atexit.register(repeats.close)
        sampled.append(repeats)
    structlog.configure(
        processors=[*sampled, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
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
    # Celery's pool of processes logs here; without a handler it gets one that writes plain text.
    pool = logging.getLogger("multiprocessing")
    pool.handlers, pool.propagate = [handler], False
    if json:
        sys.excepthook = _say_uncaught
        threading.excepthook = _say_uncaught_in_thread
    for name in ("pipeline", "producer", "workers", "model", "engine_build", "__main__"):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)


def _say_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        structlog.get_logger(__name__).critical("uncaught", exc_info=(kind, error, trace))


def _say_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _say_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _say_left_out(level: str, event: str, code: str, lines: int) -> None:
    structlog.get_logger(__name__).log(_LEVELS[level], "lines_left_out", of=event, code=code, lines=lines)
