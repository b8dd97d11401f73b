"""`bedside-edge destinations` and `bedside-edge deliveries`: do archives answer, what is stuck."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside_core.errors import (
    BedsideError,
    DestinationUnavailableError,
    NotFoundError,
    RefusedError,
    UnavailableError,
    WrongStateError,
)
from bedside_edge.cli.token_file import read_token
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

if TYPE_CHECKING:
    import httpx

_URL = "http://127.0.0.1:8642"
_PAGE = 1000
_COLUMNS = ("id", "state", "destination", "kind", "occasion", "attempts", "reason")


@click.group()
def destinations() -> None:
    """Archives: where results go and where studies can be fetched from."""


@destinations.command("test")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML settings")
def test_destinations(names: tuple[str, ...], config_path: Path | None) -> None:
    """Ask the destinations of the settings whether they answer; nothing is sent.

    Exits 5 when one of them does not.

    \b
    Examples:
      bedside-edge destinations test
      bedside-edge destinations test pacs --config bedside.toml
    """
    from bedside_edge.outgoing import destination  # the DICOM stack: only when it is needed

    config, _ = load_config(config_path)
    set_up_logging(level="error", style="plain")
    if unknown := [name for name in names if name not in config.destinations]:
        raise NotFoundError(f"not in the settings: {', '.join(unknown)}")
    silent = []
    for name in names or sorted(config.destinations):
        try:
            click.echo(f"{name}: {destination(name, config).probe()}")
        except BedsideError as error:
            click.echo(f"{name}: {error} [{error.code}]")
            silent.append(name)
    if silent:
        raise DestinationUnavailableError(f"no answer from {', '.join(silent)}")


@click.group()
def deliveries() -> None:
    """Objects on their way, as a running box sees them."""


@deliveries.command("list")
@click.option("--state", type=click.Choice(["waiting", "delivered", "dead", "withdrawn"]))
@click.option("--destination", default="", help="Only this one")
@click.option("--url", default=_URL, show_default=True, help="The running box")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with an API token")
def list_deliveries(state: str | None, destination: str, url: str, token_file: Path | None) -> None:
    """List deliveries, newest first.

    \b
    Examples:
      bedside-edge deliveries list --state dead
      bedside-edge deliveries list --destination pacs --token-file token
    """
    query = {"destination": destination, "limit": str(_PAGE)} | ({"state": state} if state else {})
    with _client(url, token_file) as client:
        found = _ask(client, "GET", "/api/v1/deliveries", params=query)["deliveries"]
    for one in found:  # whole ids, so that they can be handed to `retry`
        click.echo("  ".join(str(one[name]) for name in _COLUMNS).rstrip())


@deliveries.command("retry")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every dead letter")
@click.option("--destination", default="", help="With --all: only this one's")
@click.option("--url", default=_URL, show_default=True, help="The running box")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with an API token")
def retry_deliveries(
    ids: tuple[str, ...], every: bool, destination: str, url: str, token_file: Path | None
) -> None:
    """Send dead letters again, oldest first.

    \b
    Examples:
      bedside-edge deliveries retry --all --destination pacs
      bedside-edge deliveries retry 5f3k
    """
    if bool(ids) is every:
        raise click.UsageError("name deliveries, or --all")
    with _client(url, token_file) as client:
        if every:
            query = {"state": "dead", "destination": destination, "limit": str(_PAGE)}
            found = _ask(client, "GET", "/api/v1/deliveries", params=query)["deliveries"]
            ids = tuple(one["id"] for one in reversed(found))
        for name in ids:
            _ask(client, "POST", f"/api/v1/deliveries/{name}:retry")
    click.echo(f"{len(ids)} sent again")


@contextmanager
def _client(url: str, token_file: Path | None) -> "Iterator[httpx.Client]":
    import httpx

    from bedside_edge.remote import trusted

    token = read_token(token_file)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(
        base_url=url, headers=headers, timeout=30, trust_env=False, verify=trusted(url)
    ) as client:
        yield client


def _ask(
    client: "httpx.Client", method: str, path: str, params: dict[str, str] | None = None
) -> dict[str, Any]:
    import httpx

    try:
        answer = client.request(method, path, params=params)
    except httpx.HTTPError as cause:
        raise UnavailableError("no box answers there") from cause
    if answer.status_code in (401, 403):
        raise RefusedError(f"the box answered {answer.status_code}: it wants another token")
    if answer.status_code == 404:
        raise NotFoundError("no delivery of that id")
    if answer.status_code == 409:
        raise WrongStateError("only a dead delivery can be sent again")
    if answer.status_code != 200:
        raise UnavailableError(f"the box answered {answer.status_code}")
    document: dict[str, Any] = answer.json()
    return document
