import io
import json
import logging
import subprocess
import sys
import threading
import warnings

import pytest

from bedside_edge import logs

PATIENT = "DOE^JANE"
UID = "1.2.840.113619.2.55.3.604688119.971.1268740233.467"


@pytest.fixture
def stream():
    """Log into memory; every change to the process is undone."""
    names = ["bedside_core", "bedside_edge", "bedside_sync", "uvicorn", "uvicorn.error"]
    names += ["uvicorn.access", "pynetdicom", "pydicom", "asyncio"]
    root = logging.getLogger()
    before = (list(root.handlers), root.level, sys.excepthook, threading.excepthook)
    levels = {name: logging.getLogger(name).level for name in names}
    written = io.StringIO()
    logs.set_up_logging("debug", "json", written)
    yield written
    logging.captureWarnings(False)
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in before[0]:
        root.addHandler(handler)
    root.setLevel(before[1])
    sys.excepthook, threading.excepthook = before[2:]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger("uvicorn.access").disabled = False


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def ours():
    return logging.getLogger("bedside_edge.tests")


def test_a_line_holds_the_message_and_the_listed_fields(stream):
    ours().info("job ended", extra={"job": "j1", "seconds": 1.5, "code": "analysed"})
    (line,) = lines(stream)
    assert (line["event"], line["level"]) == ("job ended", "info")
    assert (line["job"], line["seconds"], line["code"]) == ("j1", 1.5, "analysed")
    assert line["time"].endswith("Z")


def test_a_field_that_is_not_listed_is_not_written(stream):
    ours().info("instance filed", extra={"patient": PATIENT, "sop_instance_uid": UID})
    assert PATIENT not in stream.getvalue()
    assert UID not in stream.getvalue()


@pytest.mark.parametrize("value", [PATIENT, "Jane Doe", UID, f"study-{UID}", "a" * 200, b"\x00"])
def test_a_listed_field_cannot_hold_a_name_or_a_uid(stream, value):
    ours().info("instance filed", extra={"instance": value})
    assert lines(stream)[0]["instance"] == logs.WITHHELD


@pytest.mark.parametrize(
    "value", ["2026.4.1", "127.0.0.1", "cxr-opacity/1.0.0", "sha256:00ff", 3, 0.5, True]
)
def test_versions_digests_and_numbers_are_written(stream, value):
    ours().info("model ready", extra={"model": value})
    assert lines(stream)[0]["model"] == value


def test_arguments_of_a_message_are_not_written(stream):
    ours().warning("refused %s of %s", UID, PATIENT)
    assert PATIENT not in stream.getvalue()
    assert UID not in stream.getvalue()
    assert lines(stream)[0]["event"] == "refused %s of %s"


def test_an_exception_leaves_its_type_and_place_but_not_its_words(stream):
    def reads_a_name():
        secret = PATIENT
        raise ValueError(f"cannot read {secret}")

    try:
        reads_a_name()
    except ValueError:
        ours().exception("unforeseen error", extra={"request": "r1"})
    (line,) = lines(stream)
    assert line["error"] == "ValueError"
    assert line["where"].startswith("test_logs.py:")
    assert line["where"].endswith(":reads_a_name")
    assert PATIENT not in stream.getvalue()


@pytest.mark.parametrize("name", ["pydicom", "pynetdicom.acse", "uvicorn.error", "somebody.else"])
def test_what_other_packages_say_is_not_repeated(stream, name):
    logging.getLogger(name).error("Invalid value %s for PatientName", PATIENT)
    logging.getLogger(name).error(f"GET /studies/{UID}")  # noqa: G004  (what the others do)
    assert PATIENT not in stream.getvalue()
    assert UID not in stream.getvalue()
    assert {line["logger"] for line in lines(stream)} == {name}


def test_the_access_log_is_silent(stream):
    logging.getLogger("uvicorn.access").warning("GET /dicom-web/studies/%s", UID)
    assert stream.getvalue() == ""


def test_warnings_are_not_repeated(stream):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"Invalid value for VR PN: {PATIENT}", UserWarning, stacklevel=1)
    assert PATIENT not in stream.getvalue()
    assert lines(stream)[0]["logger"] == "py.warnings"


def test_a_thread_that_dies_is_logged_without_its_words(stream):
    def work():
        raise RuntimeError(PATIENT)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (line,) = lines(stream)
    assert (line["event"], line["error"]) == ("a thread ended with an error", "RuntimeError")
    assert PATIENT not in stream.getvalue()


def test_a_line_that_cannot_be_written_does_not_print_its_content(stream, capsys):
    class Hostile:
        def __str__(self):
            raise RuntimeError(PATIENT)

    ours().info("instance filed", extra={"instance": Hostile()})
    assert PATIENT not in capsys.readouterr().err + stream.getvalue()


def test_the_plain_style_holds_the_same_and_no_more():
    record = logging.LogRecord("bedside_edge.x", logging.INFO, "", 1, "job ended", (PATIENT,), None)
    record.job, record.patient = "j1", PATIENT
    line = logs.PlainFormatter().format(record)
    assert line[8:] == " info    job ended job=j1"


def test_a_formatter_without_the_rule_would_be_caught(stream):
    """The guard's own proof: the library's formatter does leak what ours withholds."""
    handler = logging.getLogger().handlers[0]
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours().warning("refused %s", PATIENT)
    assert PATIENT in stream.getvalue()


def test_a_process_that_dies_prints_no_words_of_the_error():
    code = (
        "from bedside_edge.logs import set_up_logging\n"
        "set_up_logging()\n"
        f"raise ValueError({PATIENT!r})\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert PATIENT not in ended.stderr
    assert json.loads(ended.stderr)["error"] == "ValueError"
