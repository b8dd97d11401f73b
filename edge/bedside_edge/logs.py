"""Log lines that cannot carry a patient: a constant message and listed fields, nothing else.

Arguments, locals, exception texts and the messages of other packages quote their input, so none
of them is written. An unforeseen error leaves its type and the line of code it came from.
"""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

OURS = "bedside_"
WITHHELD = "[withheld]"

# Ids we minted, numbers we chose, words of our own lists; a reviewer asks of each new one
# whether a patient could stand in it.
FIELDS = (
    "request",
    "method",
    "route",
    "status",
    "code",
    "job",
    "study",
    "instance",
    "result",
    "delivery",
    "destination",
    "state",
    "outcome",
    "way",
    "reason",
    "priority",
    "attempts",
    "count",
    "total",
    "instances",
    "objects",
    "bytes",
    "seconds",
    "port",
    "model",
    "version",
    "package",
    "profile",
    "engine",
    "precision",
    "threads",
    "workers",
    "check",
    "setting",
    "signal",
    "use",
    "revision",
)

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.:/{}+#-]{0,96}")
_UID = re.compile(r"[0-2](\.\d+){4,}")  # PS3.5 section 9; shorter dotted numbers are versions


def safe_value(value: object) -> int | float | bool | str | None:
    """Return a field's value, or `[withheld]` when it is not a plain word, number or truth value.

    A person's name has a space or a caret, a UID has its dots: neither gets through even when a
    programmer puts it into a listed field by mistake.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    if _PLAIN_WORD.fullmatch(text) and not _UID.search(text):
        return text
    return WITHHELD


def _where(trace: TracebackType | None) -> str:
    """Return the innermost line of code of a traceback: file name, line, function; no values."""
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{Path(code.co_filename).name}:{trace.tb_lineno}:{code.co_name.strip('<>')}"


def safe_line(record: logging.LogRecord) -> dict[str, Any]:
    """Return what may be written of a record.

    Records of foreign packages keep their level and logger name only: uvicorn logs paths, pydicom
    and pynetdicom log attribute values.
    """
    line: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        + f".{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    if record.name.startswith(OURS):
        line["event"] = record.msg if isinstance(record.msg, str) else WITHHELD
        found = ((name, getattr(record, name, None)) for name in FIELDS)
        line |= {name: safe_value(value) for name, value in found if value is not None}
    else:
        line["event"] = "message of another package"
    if record.exc_info and record.exc_info[0] is not None:
        line["error"] = record.exc_info[0].__name__
        line["where"] = _where(record.exc_info[2])
    return line


class SafeFormatter(logging.Formatter):
    """One JSON object a line: the constant message and the listed fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; never arguments, never locals, never an exception's text."""
        return json.dumps(safe_line(record))


class PlainFormatter(logging.Formatter):
    """The same content for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return " ".join(self._words(safe_line(record)))

    def _words(self, line: dict[str, Any]) -> Iterator[str]:
        yield line.pop("time")[11:19]
        yield f"{line.pop('level'):7}"
        logger, event = line.pop("logger"), line.pop("event")
        yield event if logger.startswith(OURS) else f"{event} ({logger})"
        yield from (f"{name}={value}" for name, value in line.items())


class _SafeHandler(logging.StreamHandler[TextIO]):
    """The standard handler prints a record's arguments when formatting fails; this one does not."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (name of the base)
        """Say that a line was lost, and nothing about its content."""
        if sys.stderr:
            sys.stderr.write('{"level": "error", "event": "a log line could not be written"}\n')


def _thread_died(happened: threading.ExceptHookArgs) -> None:
    logging.getLogger(__name__).critical(
        "a thread ended with an error",
        exc_info=(
            happened.exc_type,
            happened.exc_value or happened.exc_type(),
            happened.exc_traceback,
        ),
    )


def _process_died(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger(__name__).critical(
        "the process ended with an error", exc_info=(kind, error, trace)
    )


def set_up_logging(
    level: str = "info", style: str = "json", stream: TextIO | None = None
) -> logging.Handler:
    """Send every logger of the process through the safe formatter; return the handler.

    Also takes over what would print exception texts by itself: warnings, the hooks for uncaught
    errors of the process and of its threads.

    Args:
        level: least severe level of our own lines; other packages start at warning.
        style: `json` or `plain`.
        stream: standard error when not given.
    """
    handler = _SafeHandler(stream or sys.stderr)
    handler.setFormatter(PlainFormatter() if style == "plain" else SafeFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for package in ("bedside_core", "bedside_edge", "bedside_sync"):
        logging.getLogger(package).setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "pynetdicom", "pydicom", "asyncio"):
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
        foreign.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True  # it writes paths and addresses
    logging.captureWarnings(True)
    sys.excepthook = _process_died
    threading.excepthook = _thread_died
    return handler
