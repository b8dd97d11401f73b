"""`bedside-edge evidence`: read, prove, verify, export and recompute the log of a box.

`verify` needs one file and the keys trusted; the others read a state folder or a copy of it, also
beside a running box. Nothing of the inference or DICOM side is imported here.
"""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside_core.errors import (
    InvalidInputError,
    InvalidKeyError,
    InvalidProofError,
    InvalidWitnessPolicyError,
    NotFoundError,
    NotReadyError,
    QuorumMissingError,
    UntrustedSignatureError,
)
from bedside_core.evidence.entry import Entry, Kind, parse_entry
from bedside_core.evidence.note import (
    SignatureType,
    VerifierKey,
    parse_note,
    parse_verifier_key,
)
from bedside_core.evidence.policy_text import WitnessPolicy, parse_policy_text
from bedside_core.evidence.proof import ProvenEntry, parse_proof, verify_proof
from bedside_edge.cli import witness as witness_cli

if TYPE_CHECKING:
    import sqlite3

    from bedside_edge.ports.evidence import Kept
    from bedside_edge.store.state import State

Json = dict[str, Any]
Command = Callable[..., None]

_PATH = click.Path(path_type=Path)
_KINDS = click.Choice([kind.value for kind in Kind])


@click.group()
def evidence() -> None:
    """The evidence log: what the box did, provable to people who trust nobody here."""


def log_options(command: Command) -> Command:
    """Add the options that say which log is read."""
    for option in (
        click.option("--config", "config_path", type=_PATH, help="TOML settings"),
        click.option(
            "--state",
            type=_PATH,
            help="State folder, or a copy of its bedside.db [default: the settings']",
        ),
    ):
        command = option(command)
    return command


@evidence.command("list")
@log_options
@click.option("--kind", "kinds", multiple=True, type=_KINDS, help="Only these; may be repeated")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--before", type=click.IntRange(0), help="Only entries below this number")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document")
def list_entries(
    config_path: Path | None,
    state: Path | None,
    kinds: tuple[str, ...],
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List entries, newest first.

    \b
    Examples:
      bedside-edge evidence list --state /var/lib/bedside
      bedside-edge evidence list --kind inference --kind alarm --limit 100
    """
    from bedside_edge.store import evidence_rows as rows

    with _log(config_path, state) as c:
        found = rows.newest(c, limit, before, [Kind(kind) for kind in kinds])
        size = rows.size(c)
    if as_json:
        click.echo(json.dumps({"size": size, "entries": [_json(one) for one in found]}))
        return
    width = len(str(size))
    for one in found:
        refs = " ".join(f"{name}={_short(value)}" for name, value in sorted(one.entry.refs.items()))
        click.echo(
            f"{one.index:>{width}}  {_when(one.entry.ts)}  {one.entry.kind.value:<12}"
            f"  {one.entry.actor:<18}  {refs}".rstrip()
        )
    click.echo(f"{len(found)} of {size} entries")


@evidence.command("show")
@click.argument("index", metavar="N", type=click.IntRange(0))
@log_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document")
def show_entry(index: int, config_path: Path | None, state: Path | None, as_json: bool) -> None:
    """Show entry N: its bytes and what the box still knows about it.

    \b
    Examples:
      bedside-edge evidence show 17
      bedside-edge evidence show 17 --state /mnt/copy --json
    """
    from bedside_edge.store import evidence_rows as rows

    with _log(config_path, state) as c:
        one = rows.entry(c, index)
    if as_json:
        click.echo(json.dumps(_json(one), sort_keys=True))
        return
    _print_entry(one.index, one.entry)
    if one.study_id:
        click.echo(f"{'study':<10}{one.study_id}  (known to this box, not in the log)")
    click.echo(one.data.decode())


@evidence.command("prove")
@click.argument("index", metavar="N", type=click.IntRange(0))
@log_options
@click.option("-o", "--output", type=_PATH, required=True, help="FILE.tlog-proof")
def prove(index: int, config_path: Path | None, state: Path | None, output: Path) -> None:
    """Write the proof of entry N: one file that anybody can verify offline.

    It holds the entry, the newest checkpoint that covers it and the signatures of its witnesses.
    An entry newer than every checkpoint needs one first; the box signs every hour, when it stops,
    and over HTTP (GET /api/v1/evidence/proofs/N) at once.

    \b
    Examples:
      bedside-edge evidence prove 17 -o entry-17.tlog-proof
      bedside-edge evidence prove 17 --state /mnt/copy -o entry-17.tlog-proof
    """
    from bedside_edge.store import evidence_rows as rows

    with _log(config_path, state) as c:
        made = rows.proof(c, index)
        keys = rows.known_keys(c)
    if made is None:
        raise NotReadyError(
            f"no checkpoint covers entry {index} yet; stop the box and run"
            " `bedside-edge evidence checkpoint`, or ask the running one for"
            f" /api/v1/evidence/proofs/{index}"
        )
    _write(output, made)
    click.echo(f"{output}: {len(made)} bytes")
    click.echo(
        "verify it with these keys, which the verifier must get by another way than this file"
    )
    click.echo("(`bedside-edge evidence keys` prints them whole):")
    for key in keys:
        click.echo(f"  {_brief(key)}")


@evidence.command("verify")
@click.argument("file", type=_PATH)
@click.option(
    "--vkey",
    "vkeys",
    multiple=True,
    help="Key of the log, or a file with one key a line; all must have signed",
)
@click.option(
    "--witness", "witnesses", multiple=True, help="Key of a witness, or a file with one a line"
)
@click.option(
    "--quorum", default=0, type=click.IntRange(0), help="How many witness keys must have signed"
)
@click.option(
    "--policy",
    type=_PATH,
    help="Text that says which witnesses are enough (c2sp.org/tlog-policy), and of which logs",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document")
def verify(
    file: Path,
    vkeys: tuple[str, ...],
    witnesses: tuple[str, ...],
    quorum: int,
    policy: Path | None,
    as_json: bool,
) -> None:
    """Verify a proof FILE offline: no server, no state, nothing but the keys given.

    Exits 0 when the entry is proven, 3 when it is not, 4 when the file cannot be read as a proof.

    \b
    Examples:
      bedside-edge evidence verify entry-17.tlog-proof --vkey log.vkeys
      bedside-edge evidence verify p --vkey log.vkeys --witness hub.vkeys --quorum 2
      bedside-edge evidence verify p --policy consortium.policy
    """
    log_keys, witness_keys = read_keys(vkeys), read_keys(witnesses)
    try:
        data = file.read_bytes()
    except OSError as cause:
        raise InvalidProofError(f"{file} cannot be read: {cause.strerror}") from cause
    enough = _read_policy(policy) if policy else None
    if enough:
        witness_keys += enough.witnesses.values()
        log_keys = log_keys or _keys_in(enough, data)
    names = {key.name for key in log_keys}
    if len(names) != 1:
        raise InvalidInputError(
            "give the keys of one log, from `bedside-edge evidence keys`, with --vkey FILE;"
            " --policy may hold them"
        )
    proven = verify_proof(data, names.pop(), log_keys, witness_keys)
    cosigned = [signer for signer in proven.opened.signers if signer.key in witness_keys]
    if len(cosigned) < quorum:
        raise UntrustedSignatureError(
            f"{len(cosigned)} witness keys signed, {quorum} are asked for"
        )
    if enough and not enough.met(signer.key for signer in cosigned):
        raise QuorumMissingError(
            f"{len(cosigned)} witness keys of the policy signed, which is not enough for it"
        )
    entry = parse_entry(proven.entry)
    if as_json:
        click.echo(json.dumps(_proven_json(proven, entry), sort_keys=True))
        return
    tree = proven.opened.checkpoint
    click.echo(f"proven: entry {proven.index} of {tree.size} in {tree.origin}")
    _print_entry(proven.index, entry)
    for signer in proven.opened.signers:
        at = f", {_when(signer.time)}" if signer.time else ""
        click.echo(f"{'signed by':<10}{_brief(signer.key)}{at}")


@evidence.command("export")
@click.argument("folder", metavar="DIR", type=_PATH)
@log_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; no progress bar")
def export_tiles(folder: Path, config_path: Path | None, state: Path | None, as_json: bool) -> None:
    """Write the log into DIR as static files: c2sp.org/tlog-tiles, for auditors and mirrors.

    Run again into the same folder it adds what is new.

    \b
    Examples:
      bedside-edge evidence export /mnt/audit/box-1
    """
    from bedside_edge.store.evidence_offline import export

    with _log(config_path, state) as c, progress_bar("files", shown=not as_json) as progress:
        size, written = export(c, folder, progress)
    if as_json:
        click.echo(json.dumps({"size": size, "files": written}))
    else:
        click.echo(f"{folder}: {size} entries, {written} files written")


@evidence.command("check")
@log_options
@click.option("--quick", is_flag=True, help="Hashes and signatures only; do not read each entry")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; no progress bar")
def check(config_path: Path | None, state: Path | None, quick: bool, as_json: bool) -> None:
    """Recompute everything from the raw entries: nodes, roots, every signed checkpoint.

    Exits 5 with the place when anything is not what was written and signed.

    \b
    Examples:
      bedside-edge evidence check
      bedside-edge evidence check --state /mnt/copy --json
    """
    from bedside_edge.store import evidence_rows as rows
    from bedside_edge.store.evidence_check import check_log

    with _log(config_path, state) as c, progress_bar("entries", shown=not as_json) as progress:
        origin, keys = rows.meta(c, rows.ORIGIN), rows.known_keys(c)
        checked = check_log(c, origin, keys, progress, parse=not quick)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts: Json = {
        "origin": origin,
        "entries": checked.entries,
        "checkpoints": checked.checkpoints,
        "root": checked.root.hex(),
        "seconds": round(checked.seconds, 2),
        "peak_memory_mib": round(megabytes),
    }
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))
        return
    click.echo(
        f"{origin}: {checked.entries} entries and {checked.checkpoints} checkpoints agree"
        f" ({checked.seconds:.1f} s, {megabytes:.0f} MiB)"
    )
    click.echo(f"root {checked.root.hex()}")


@evidence.command("checkpoint")
@log_options
@click.option(
    "--outgoing", is_flag=True, help="Pad to the public schedule first; this one may leave"
)
def sign_checkpoint(config_path: Path | None, state: Path | None, outgoing: bool) -> None:
    """Sign what the log of a stopped box holds, and print the signed checkpoint.

    \b
    Examples:
      bedside-edge evidence checkpoint --state /var/lib/bedside
    """
    with _stopped_box(config_path, state) as opened:
        log = opened.evidence
        note = log.outgoing_checkpoint() if outgoing else log.checkpoint()
    click.echo(note.decode(), nl=False)


@evidence.command("keys")
@log_options
def show_keys(config_path: Path | None, state: Path | None) -> None:
    """Print the public keys of the log, one a line: what a verifier must be given.

    \b
    Examples:
      bedside-edge evidence keys > log.vkeys
    """
    from bedside_edge.store import evidence_rows as rows

    with _log(config_path, state) as c:
        keys = rows.known_keys(c)
    if not keys:
        raise NotFoundError("the log has no keys yet: start the box once")
    for key in keys:
        click.echo(key.text)


evidence.add_command(witness_cli.witness)
evidence.add_command(witness_cli.continue_log)


# --- opening ---------------------------------------------------------------------------------


@contextmanager
def _log(config_path: Path | None, state: Path | None) -> "Iterator[sqlite3.Connection]":
    from bedside_edge.config import load_config
    from bedside_edge.store.evidence_offline import open_copy

    with open_copy(state or load_config(config_path)[1]) as connection:
        yield connection


@contextmanager
def _stopped_box(config_path: Path | None, state: Path | None) -> "Iterator[State]":
    """Open the state folder as its box would; refused while the box runs."""
    from bedside_edge.config import load_config
    from bedside_edge.store.evidence_open import LogSettings
    from bedside_edge.store.state import open_state
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.keys import open_box_keys
    from bedside_edge.system.log_keys import open_log_keys
    from bedside_edge.system.random_os import OsRandom

    config, folder = load_config(config_path)
    path = state or folder
    if not (path / "bedside.db").is_file():  # never make a box by asking about one
        raise NotFoundError(f"there is no bedside.db in {path}")
    settings = LogSettings(
        open_keys=open_log_keys,
        origin=config.evidence.origin,
        nightly_quota=config.evidence.nightly_quota,
    )
    opened = open_state(path, SystemClock(), OsRandom(), open_box_keys, evidence=settings)
    try:
        yield opened
    finally:
        opened.close()


def read_keys(given: tuple[str, ...]) -> list[VerifierKey]:
    """Read keys, each given as text or as a file with one a line."""
    lines: list[str] = []
    for one in given:
        if "+" not in one or Path(one[:255]).is_file():  # every key has a plus, few files do
            try:
                lines += Path(one).read_text(encoding="utf-8").split()
            except (OSError, UnicodeDecodeError) as cause:
                raise InvalidKeyError(f"no file with keys, and no key: {one[:80]}") from cause
        else:
            lines.append(one)
    return [parse_verifier_key(line) for line in lines]


def _read_policy(path: Path) -> WitnessPolicy:
    try:
        return parse_policy_text(path.read_bytes())
    except OSError as cause:
        raise InvalidWitnessPolicyError(f"{path} cannot be read: {cause.strerror}") from cause


def _keys_in(policy: WitnessPolicy, proof: bytes) -> list[VerifierKey]:
    """Return the policy's keys of the log that the proof says it is of."""
    origin = parse_note(parse_proof(proof).checkpoint).text.partition("\n")[0]
    found = policy.keys_of(origin)
    if not found:
        raise UntrustedSignatureError("the policy names no key of the log the proof is of")
    return list(found)


@contextmanager
def progress_bar(unit: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error, when somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(unit),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(unit, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as cause:
        raise InvalidInputError(f"{path} cannot be written: {cause.strerror}") from cause


# --- printing --------------------------------------------------------------------------------


def _print_entry(index: int, entry: Entry) -> None:
    told = [
        ("entry", str(index)),
        ("kind", entry.kind.value),
        ("time", f"{_when(entry.ts)} ({entry.ts_src.value})"),
        ("actor", entry.actor),
        ("subject", entry.subject or ""),
        ("payload", entry.payload or ""),
        *((name, str(value)) for name, value in sorted(entry.refs.items())),
    ]
    for name, value in told:
        if value:
            click.echo(f"{name:<10}{value}")


def _json(one: "Kept") -> Json:
    document: Json = {"index": one.index, "entry": json.loads(one.data)}
    return document | ({"study": one.study_id} if one.study_id else {})


def _proven_json(proven: ProvenEntry, entry: Entry) -> Json:
    tree = proven.opened.checkpoint
    return {
        "proven": True,
        "index": proven.index,
        "entry": json.loads(entry.encode()),
        "origin": tree.origin,
        "size": tree.size,
        "root": tree.root.hex(),
        "signers": [
            {"name": each.key.name, "key_id": each.key.key_id.hex(), "time": each.time}
            for each in proven.opened.signers
        ],
    }


def _brief(key: VerifierKey) -> str:
    algorithm = "Ed25519" if key.kind is not SignatureType.ML_DSA_44_COSIGNATURE else "ML-DSA-44"
    return f"{key.name} {key.key_id.hex()} ({algorithm})"


def _when(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


def _short(value: int | str) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
