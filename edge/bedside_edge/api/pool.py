"""Threads for blocking work, with a shorter way back to the event loop than an executor has."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from bedside_core.errors import NotReadyError, QueueFullError

T = TypeVar("T")


class _Task(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    work: Callable[..., Any]
    arguments: tuple[object, ...]


class WorkPool:
    """A fixed number of threads; work runs in order of arrival and always to its end.

    A request that is cancelled stops waiting, its work does not stop half way: what was begun in
    storage is finished, or undone by the code that began it. Called from one event loop.
    """

    def __init__(self, name: str, threads: int, max_waiting: int | None = None) -> None:
        """Start the threads.

        Args:
            name: prefix of the thread names.
            threads: how many tasks run at a time.
            max_waiting: most tasks beyond the running ones; no limit when None.
        """
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._limit = None if max_waiting is None else max_waiting + threads
        self._open = 0  # read and written on the event loop only
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def open(self) -> int:
        """How many tasks run or wait."""
        return self._open

    @property
    def crowded(self) -> bool:
        """Whether a task that comes now has to wait for a thread."""
        return self._open >= len(self._threads)

    def run(self, work: Callable[..., T], *arguments: object) -> "asyncio.Future[T]":
        """Queue `work(*arguments)`; the future ends with its value or its error.

        Raises:
            QueueFullError: too many tasks wait already.
            NotReadyError: the pool is closed.
        """
        if self._closed:
            raise NotReadyError("the service is stopping")
        if self._limit is not None and self._open >= self._limit:
            raise QueueFullError("too many requests wait for the model")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._open += 1
        self._queue.put(_Task(loop, future, work, arguments))
        return future

    def close(self) -> None:
        """Take no more; the threads run what is queued, then end."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the threads after `close`; False if some still run after `seconds`."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        while (task := self._queue.get()) is not None:
            value: Any = None
            error: BaseException | None = None
            try:
                value = task.work(*task.arguments)
            except BaseException as raised:  # handed to whoever awaits, whatever it is
                error = raised
            try:
                task.loop.call_soon_threadsafe(self._settle, task.future, value, error)
            except RuntimeError:  # the loop closed first: nobody awaits any more
                continue
            finally:
                del task, value, error  # an idle thread keeps no image and no traceback alive

    def _settle(
        self, future: "asyncio.Future[Any]", value: object, error: BaseException | None
    ) -> None:
        self._open -= 1
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


def close_pools(pools: Sequence[WorkPool], seconds: float) -> bool:
    """Close all and wait for them together; False if a thread still runs after `seconds`."""
    deadline = time.monotonic() + seconds
    for pool in pools:
        pool.close()
    ended = [pool.join(max(0.0, deadline - time.monotonic())) for pool in pools]
    return all(ended)
