"""Server-sent events: nothing is missed, nobody is named, nobody is held up, and it ends."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from bedside_core.errors import QueueFullError
from bedside_edge.api import following as module
from bedside_edge.api.following import Following
from bedside_edge.api.pool import WorkPool
from bedside_edge.ports import Job, JobState, Priority
from support.http_box import HttpBox
from support.memory_following import MemoryChanges


def parse(chunk: bytes) -> dict[str, str]:
    lines = chunk.decode().strip().split("\n")
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def job(state: JobState) -> Job:
    return Job(
        job_id="j1",
        study_id="s1",
        state=state,
        priority=Priority.STAT,
        created=1,
        updated=2,
        due=3,
        attempts=0,
        reason="",
        instances=1,
        result_id="",
    )


class Listener:
    """One stream, read event by event."""

    def __init__(self, stream) -> None:
        self.stream = stream
        self.events = stream.body_iterator

    async def next(self) -> dict[str, str]:
        return parse(await asyncio.wait_for(anext(self.events), 5))

    async def rest(self) -> list[dict[str, str]]:
        return [parse(chunk) async for chunk in self.events]

    async def close(self) -> None:
        await self.events.aclose()
        self.stream._leave()


def run(test, **settings):
    """Run `test(changes, following, stop)` on a loop with a pool of one thread."""

    async def main():
        pool, changes, stopped = WorkPool("storage", 1), MemoryChanges(), []
        services = SimpleNamespace(changes=changes)
        following = Following(services, pool, lambda: bool(stopped), **settings)
        try:
            await test(changes, following, lambda: stopped.append(1))
        finally:
            stopped.append(1)
            pool.close()
            if following._watch is not None:
                await following._watch

    asyncio.run(main())


def test_what_happens_while_one_listens_arrives_in_order():
    async def test(changes, following, stop):
        changes.add("job", "j0", "collecting")
        one = Listener(await following.start("a", ""))
        hello = await one.next()
        assert (hello["event"], hello["id"]) == ("hello", "1.1")
        changes.add("job", "j1", "running")
        changes.add("result", "r1", "stored", job="j1")
        first, second = await one.next(), await one.next()
        assert (first["event"], first["id"], second["id"]) == ("job", "2.1", "3.1")
        assert json.loads(second["data"]) == {
            "id": "r1",
            "job": "j1",
            "study": "study-1",
            "state": "stored",
            "reason": "",
            "at": 1,
        }
        await one.close()

    run(test)


def test_a_listener_that_comes_back_gets_what_it_missed():
    async def test(changes, following, stop):
        for number in range(5):
            changes.add("job", f"j{number}", "running", at=number)
        one = Listener(await following.start("a", "3.2"))
        assert (await one.next())["event"] == "hello"
        assert [(await one.next())["id"] for _ in range(2)] == ["4.3", "5.4"]
        await one.close()

    run(test)


@pytest.mark.parametrize("last", ["9.1", "1.7", "junk", "1", "-1.1"])
def test_a_place_that_is_not_known_any_more_says_load_the_page_again(last):
    async def test(changes, following, stop):
        changes.add("job", "j", "running", at=1)
        one = Listener(await following.start("a", last))
        first = await one.next()
        assert (first["event"], first["id"]) == ("reload", "1.1")
        await one.close()

    run(test)


def test_one_job_is_followed_to_its_end_and_others_are_not_heard():
    async def test(changes, following, stop):
        one = Listener(await following.start("a", "", job(JobState.READY)))
        assert (await one.next())["event"] == "hello"
        assert json.loads((await one.next())["data"])["state"] == "ready"
        changes.add("job", "other", "done")
        changes.add("job", "j1", "running")
        changes.add("result", "r1", "stored", job="j1")
        changes.add("job", "j1", "done")
        changes.add("delivery", "r1", "delivered", job="j1")
        states = [json.loads(event["data"])["state"] for event in await one.rest()]
        assert states == ["running", "stored", "done"]

    run(test)


def test_a_job_that_has_ended_is_told_and_the_stream_ends():
    async def test(changes, following, stop):
        one = Listener(await following.start("a", "", job(JobState.DONE)))
        assert [event["event"] for event in await one.rest()] == ["hello", "job"]

    run(test)


def test_listeners_are_bounded_and_a_place_is_given_back():
    async def test(changes, following, stop):
        first = await following.start("a", "")
        second = await following.start("b", "")
        with pytest.raises(QueueFullError):
            await following.start("b", "")
        third = await following.start("c", "")
        with pytest.raises(QueueFullError):
            await following.start("d", "")
        second._leave()
        fourth = await following.start("b", "")
        for stream in (first, third, fourth):
            stream._leave()
        assert following.listeners == 0

    run(test, most=3, most_each=1)


def test_it_beats_while_nothing_happens_and_ends_when_the_service_stops(monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.0)

    async def test(changes, following, stop):
        one = Listener(await following.start("a", ""))
        await one.next()
        assert await asyncio.wait_for(anext(one.events), 5) == b": ping\n\n"
        stop()
        assert all(list(event) == [""] for event in await asyncio.wait_for(one.rest(), 5))

    run(test)


def test_it_ends_after_a_while_so_that_who_listens_is_asked_again():
    async def test(changes, following, stop):
        one = Listener(await following.start("a", ""))
        assert [event["event"] for event in await asyncio.wait_for(one.rest(), 5)] == ["hello"]

    run(test, longest_s=0.0)


def test_listening_takes_no_thread_and_no_look_when_nobody_does():
    async def test(changes, following, stop):
        listeners = [Listener(await following.start("a", "")) for _ in range(8)]
        for one in listeners:
            await one.next()
        changes.add("job", "j1", "running")
        assert {(await one.next())["id"] for one in listeners} == {"1.1"}
        for one in listeners:
            await one.close()
        await asyncio.wait_for(following._watch, 5)

    run(test)


def test_over_http_a_job_that_has_ended_answers_204_to_whoever_comes_back():
    with HttpBox() as box:
        box.queue.add("j1", state=JobState.DONE)
        path = "/api/v1/jobs/j1/events"
        whole = box.client.get(path)
        assert whole.headers["Content-Type"].startswith("text/event-stream")
        assert whole.headers["Cache-Control"] == "no-store"
        assert "event: hello" in whole.text
        assert '"state": "done"' in whole.text
        assert box.client.get(path, headers={"Last-Event-ID": "1.1"}).status_code == 204
        assert box.client.get("/api/v1/jobs/none/events").status_code == 404
