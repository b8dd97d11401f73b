"""The rounds table as a page on the loopback address: drawn here, no script, nothing to click.

It shows public things only: names of members, times, counts, costs. It answers GET of `/` and
`/rounds.json` to a Host that is this machine, and nothing else.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

from bedside_core.errors import UnavailableError
from bedside_sync.hub.overview import RoundView
from bedside_sync.hub.plan import DELTA, utc

_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
_STYLE: Final = """
:root{color-scheme:light dark;font:15px/1.45 system-ui,sans-serif}
body{max-width:78rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.3rem;margin:0 0 .3rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
table{border-collapse:collapse;width:100%}caption{text-align:left;padding:.2rem 0}
th,td{text-align:left;padding:.35rem .7rem .35rem 0;border-bottom:1px solid #8886;
vertical-align:top}
td.n{font-variant-numeric:tabular-nums}
.state{border:1px solid #8888;border-radius:.6rem;padding:.05rem .5rem;white-space:nowrap}
.muted{opacity:.7}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)
_REFRESH_S: Final = 10

Look = Callable[[], tuple[Sequence[RoundView], dict[str, list[str]]]]
Rollout = Mapping[str, str | int]
LookAtRollouts = Callable[[], Sequence[Rollout]]


class StatusPage:
    """Serves the page on a thread of its own until closed."""

    def __init__(
        self,
        consortium: str,
        port: int,
        look: Look,
        now: Callable[[], int],
        rollouts: LookAtRollouts = tuple,
    ) -> None:
        """Listen on 127.0.0.1; UnavailableError when the port is taken. Port 0: any."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _answer(self, consortium, look, now, rollouts)

            def log_message(self, *_: object) -> None:
                """Addresses of visitors are nobody's business."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as cause:
            raise UnavailableError(f"the status page cannot listen: {cause.strerror}") from cause
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="status")
        self._thread.start()

    def close(self) -> None:
        """Stop; returns when the thread has ended."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _answer(
    request: BaseHTTPRequestHandler,
    consortium: str,
    look: Look,
    now: Callable[[], int],
    rollouts: LookAtRollouts,
) -> None:
    host = request.headers.get("Host", "").rsplit(":", 1)[0]
    if host not in _HOSTS:  # another name for this machine is a page somewhere pointing here
        status, kind, body = 421, "text/plain", "ask for this machine by its own name"
    elif request.path == "/":
        rounds, coming = look()
        drawn = page(consortium, rounds, coming, now(), rollouts())
        status, kind, body = 200, "text/html", drawn
    elif request.path == "/rounds.json":
        rounds, coming = look()
        facts = {"rounds": [asdict(one) for one in rounds], "awaited_keys": coming}
        text = json.dumps(facts | {"rollouts": [dict(one) for one in rollouts()]})
        status, kind, body = 200, "application/json", text
    else:
        status, kind, body = 404, "text/plain", "there is / and /rounds.json"
    data = body.encode("utf-8")
    request.send_response(status)
    for name, value in (
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Content-Length", str(len(data))),
        ("Content-Security-Policy", _POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    ):
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(data)


def page(
    consortium: str,
    rounds: Sequence[RoundView],
    coming: dict[str, list[str]],
    now: int,
    rollouts: Sequence[Rollout] = (),
) -> str:
    """Return the page."""
    rows = "".join(_row(one) for one in rounds) or (
        '<tr><td colspan="6" class="muted">No round has been opened yet.</td></tr>'
    )
    keys = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(', '.join(boxes)) or 'nobody: ready'}</td></tr>"
        for name, boxes in coming.items()
    )
    awaited = (
        "<h2>Rounds to come</h2><table><thead><tr><th>round</th><th>helper keys awaited from</th>"
        f"</tr></thead><tbody>{keys}</tbody></table>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{_REFRESH_S}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(consortium)}: rounds</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(consortium)}: rounds</h1>"
        f'<p class="muted">As of {utc(now)}. The hub adds masked vectors; it reads none.</p>'
        "<table><thead><tr><th>round</th><th>state</th><th>waits for</th><th>reported</th>"
        f"<th>closes, expires</th><th>epsilon at {DELTA:g}</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{awaited if keys else ''}{_rollouts(rollouts)}</body></html>"
    )


def _rollouts(found: Sequence[Rollout]) -> str:
    if not found:
        return ""
    rows = "".join(
        f"<tr><td><strong>{escape(str(one['name']))}</strong><br>"
        f'<span class="muted">{escape(str(one["path"]))}</span></td>'
        f'<td><span class="state">{escape(str(one["state"]))}</span></td>'
        f"<td>{escape(str(one['group']))}, {one['reached']} boxes reached</td>"
        f"<td>{escape(str(one['why'])) or '-'}</td></tr>"
        for one in found
    )
    return (
        "<h2>Rollouts</h2><table><thead><tr><th>rollout</th><th>state</th><th>group</th>"
        f"<th>why</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(one: RoundView) -> str:
    there = [got.box for got in one.reported if got.state == "in"]
    left = [f"{got.box} ({got.state})" for got in one.reported if got.state != "in"]
    refused = ", ".join(f"{code} {count}" for code, count in one.refusals.items())
    notes = [", ".join(there + left) or "nobody yet"]
    if one.silent:
        notes.append(f"silent: {', '.join(one.silent[:20])}")
    if refused:
        notes.append(f"refused: {refused}")
    words = "<br>".join(escape(note) for note in notes)
    return (
        f"<tr><td><strong>{escape(one.name)}</strong><br>"
        f'<span class="muted">{escape(one.task)}, {escape(one.purpose)}, {one.words} words</span>'
        f'</td><td><span class="state">{escape(one.state)}</span></td>'
        f"<td>{escape(one.waits_for) or '-'}</td><td>{len(there)}<br>"
        f'<span class="muted">{words}</span></td>'
        f'<td class="n">{utc(one.closes)}<br>{utc(one.expires)}</td>'
        f'<td class="n">{one.epsilon:.3f}</td></tr>'
    )
