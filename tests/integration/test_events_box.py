"""Events of a real process: told as they happen, taken up again after a kill, ended by a stop."""

import json
import threading
import time

from support.running_box import running_box
from support.synthetic import data_set, noise, part10


def follow(box, last_id="", *, until, seconds=20.0):
    """Read events until one is called `until`; return (name, id, data) of each."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    found, event = [], {}
    deadline = time.monotonic() + seconds
    with box.http.stream("GET", "/api/v1/events", headers=headers, timeout=seconds) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            assert time.monotonic() < deadline, found
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
                continue
            if "event" in event:
                found.append((event["event"], event["id"], json.loads(event["data"])))
                if event["event"] == until:
                    return found
            event = {}
    return found


def test_what_happened_while_nobody_listened_is_told_after_a_kill(tmp_path):
    with running_box(tmp_path) as box:
        ((_, place, _),) = follow(box, until="hello")
        box.analyze(part10(data_set(noise(32, 32), study=1)))
        box.kill()
    with running_box(tmp_path) as box:
        told = follow(box, place, until="result")
        assert told[0][0] == "hello"
        states = [data["state"] for name, _, data in told if name == "job"]
        assert states[-1] == "refused"
        assert told[-1][2]["id"] == box.settled()[0]["result"].rsplit("/", 1)[1]
        assert "P1" not in json.dumps(told)


def test_a_stop_ends_the_streams_at_once(tmp_path):
    with running_box(tmp_path) as box:
        heard, ended = threading.Event(), threading.Event()

        def listen():
            with box.http.stream("GET", "/api/v1/events", timeout=30) as answer:
                for line in answer.iter_lines():
                    if line.startswith("event: hello"):
                        heard.set()
            ended.set()

        thread = threading.Thread(target=listen)
        thread.start()
        assert heard.wait(20)
        assert box.stop() == 0
        assert ended.wait(5)
        thread.join(5)
