"""Logs go to stderr: lines for a person at a terminal, one JSON object a line for everything that collects logs."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from eventwright.app.commands.telling import plain
from eventwright.guardrails.redaction import Redaction

#: Libraries that tell about every step they take.
CHATTY = ("alembic", "asyncio", "httpx", "openai", "uvicorn")


def log_to_stderr(level: int = logging.INFO, *, redaction: Redaction | None = None) -> None:
    """Let every library of this process log there, from `level` on, without personal data and secrets.

    Args:
        redaction: what is hidden; by default every kind of personal data.
    """
    redaction = redaction or Redaction()
    terminal = sys.stderr.isatty()
    moment = structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal)
    line: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # The renderer's own tracebacks show the values of variables, and so secrets and customers' words.
        structlog.processors.format_exc_info,
        lambda _logger, _method, event: redaction.for_journal(event),
    ]
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(
            pad_event_to=0, pad_level=False, exception_formatter=structlog.dev.plain_traceback
        )
        line += [_harmless, renderer]
    else:
        line += [structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, moment],
            processors=line,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A stranger's text may stand in a log line; JSON escapes it by itself."""
    return {name: plain(value) if isinstance(value, str) else value for name, value in event.items()}
