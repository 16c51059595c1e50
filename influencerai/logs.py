"""Logs: one line per request; every line has the ids of its job, tenant or node.

Headers, bodies and values of local variables are never logged.
"""

from __future__ import annotations

import logging
import sys
import time

import structlog

from influencerai.settings import Settings

_LEFT_OUT = ("color_message", "_ray_timestamp_ns")
"""Fields that uvicorn and Ray add to every record for their own use."""
_SAME_SECONDS = 10.0
_SAME_MOST = 20
_OURS = "influencerai"


class RepetitionFilter(logging.Filter):
    """Passes a message of other libraries twenty times in ten seconds, then reports the number of suppressed ones.

    Otherwise anyone who can connect could fill the disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == _OURS:
            return True
        key = record.name, str(record.msg)
        ends_at, count = self._seen.get(key, (0.0, 0))
        if ends_at <= (now := time.monotonic()):
            if count > _SAME_MOST:
                record.msg, record.args = f"{record.getMessage()} ({count - _SAME_MOST} more like this)", ()
            if len(self._seen) > _SAME_MOST**2:
                self._seen.clear()
            ends_at, count = now + _SAME_SECONDS, 0
        self._seen[key] = ends_at, count + 1
        return count < _SAME_MOST


def configure_logs(settings: Settings) -> None:
    """Send the logs of this process to standard error, with the level and format of the settings."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _without_additions,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor]
    if settings.log_format == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        last = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepetitionFilter())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # it would log each request a second time
    for name in ("aiosqlite", "alembic"):  # the first logs every value that is written to the database
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_additions(logger: object, method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name in _LEFT_OUT:
        fields.pop(name, None)
    return fields
