"""A real headless Chromium, driven over its debugging pipe: no driver, no port, no network.

The DevTools protocol is JSON between zero bytes on file descriptors 3 and 4. A page collects what
a person never sees: exceptions, console errors, violations of the content security policy.
"""

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which("chromium")
WAIT_S = 15.0
_FLAGS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # tests may run as root in a container
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
_KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Tab": ("Tab", 9, ""),
    "Escape": ("Escape", 27, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    " ": ("Space", 32, " "),
}

needs_chromium = pytest.mark.skipif(
    PROGRAM is None, reason="chromium is not installed (Debian package chromium)"
)


class Chromium:
    """One browser process with a throw-away profile."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # the shell puts the two ends where the browser looks for them
        line = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", line, PROGRAM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(folder)},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = os.fdopen(ours_in, "rb", 0), os.fdopen(ours_out, "wb", 0)
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._number = 0
        self._gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def page(self, width: int = 1280, height: int = 900, **looks: Any) -> "Page":
        """Open a tab in a context of its own: no cookie of another page."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        return Page(self, session["sessionId"], width, height, **looks)

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        with self._changed:
            self._number += 1
            number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._out.write(json.dumps(message).encode() + b"\0")
        with self._changed:
            answered = self._changed.wait_for(lambda: number in self._answers or self._gone, WAIT_S)
            assert answered, f"no answer to {method}"
            assert not self._gone, "the browser is gone"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']['message']}"
        return answer["result"]

    def events(self, session: str) -> list[dict[str, Any]]:
        """Return what a page has told so far."""
        with self._changed:
            return list(self._events.get(session, ()))

    def close(self) -> None:
        """End the browser, whatever it does."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._out.close()
        self._reader.join(5)
        self._in.close()

    def _read(self) -> None:
        left = b""
        while piece := self._in.read(1 << 16):
            *messages, left = (left + piece).split(b"\0")
            for message in messages:
                self._take(json.loads(message))
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        with self._changed:
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._events.setdefault(message.get("sessionId", ""), []).append(message)
            self._changed.notify_all()


class Page:
    """One tab. Clicks and keys are real input events, not calls of handlers."""

    def __init__(
        self,
        browser: Chromium,
        session: str,
        width: int,
        height: int,
        *,
        language: str = "en",
        dark: bool = True,
        zoom: float = 1.0,
    ) -> None:
        self._browser, self._session = browser, session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        self.resize(width, height, zoom)

    def resize(self, width: int, height: int, zoom: float = 1.0) -> None:
        """Give the window a size; zoom is what Ctrl and plus do."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=round(width / zoom),
            height=round(height / zoom),
            deviceScaleFactor=zoom,
            mobile=False,
        )

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    # --- going and looking ---------------------------------------------------------------------

    def goto(self, url: str) -> None:
        """Open an address and wait until the page and its scripts are there."""
        self.run("window.__left = true")
        self.call("Page.navigate", url=url)
        self.arrived()

    def arrived(self) -> None:
        """Wait for the page that a click or a key has led to."""
        self.wait("!window.__left && document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, f"{code}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = WAIT_S) -> Any:
        """Wait until an expression is true and return it."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = self.run(f"((found) => found instanceof Element || found)({code})")
            except AssertionError:  # the page changes under the question
                found = None
            if found:
                return found
            if time.monotonic() > deadline:
                text = self.run("document.body.innerText")
                raise AssertionError(f"waited in vain for {code}; the page says:\n{text}")
            time.sleep(0.03)

    def text(self, selector: str = "main") -> str:
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    @property
    def url(self) -> str:
        return self.run("location.pathname + location.search + location.hash")

    # --- what a person does --------------------------------------------------------------------

    def click(self, selector: str, *, leads_away: bool = False) -> None:
        x, y = self.centre(selector)
        if leads_away:
            self.run("window.__left = true")
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)
        if leads_away:
            self.arrived()

    def drag(self, selector: str, across: int, down: int) -> None:
        x, y = self.centre(selector)
        self.mouse("mousePressed", x, y)
        for step in (1, 2, 3, 4):
            self.mouse("mouseMoved", x + across * step / 4, y + down * step / 4)
        self.mouse("mouseReleased", x + across, y + down)

    def mouse(self, kind: str, x: float, y: float) -> None:
        held = kind != "mouseReleased"
        self.call(
            "Input.dispatchMouseEvent",
            **{"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1},
            buttons=1 if held else 0,
        )

    def centre(self, selector: str) -> tuple[float, float]:
        place = self.wait(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " if (!e) return null; e.scrollIntoView({block: 'center'});"
            " const r = e.getBoundingClientRect();"
            " return r.width ? [r.x + r.width / 2, r.y + r.height / 2] : null })()"
        )
        return place[0], place[1]

    def type(self, selector: str, text: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, leads_away: bool = False) -> None:
        code, number, text = _KEYS.get(key, (f"Key{key.upper()}", ord(key.upper()[0]), key))
        if leads_away:
            self.run("window.__left = true")
        parameters: dict[str, Any] = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        if text:
            parameters["text"] = text
        self.call("Input.dispatchKeyEvent", type="keyDown", **parameters)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)
        if leads_away:
            self.arrived()

    # --- what nobody sees ----------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Return exceptions, console errors and what the content security policy refused."""
        found = []
        for event in self._browser.events(self._session):
            values = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                details = values["exceptionDetails"]
                found.append(str(details.get("exception", {}).get("description", details)))
            elif event["method"] == "Runtime.consoleAPICalled" and values["type"] == "error":
                found.append(str([one.get("value") for one in values["args"]]))
            elif event["method"] == "Log.entryAdded" and values["entry"]["level"] == "error":
                found.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
        return found

    def requests(self) -> list[str]:
        """Return the address of everything the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events(self._session)
            if event["method"] == "Network.requestWillBeSent"
        ]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """Run a browser; whatever happens, no process is left."""
    browser = Chromium(folder)
    try:
        yield browser
    finally:
        browser.close()
