"""A state folder whose statistics may leave: a policy signed by two, an epoch, the commands."""

from pathlib import Path

from click.testing import CliRunner

from bedside_core.accounting import cap_units
from bedside_core.errors import BedsideError, RefusedError, UnavailableError
from bedside_edge.cli import cli
from bedside_edge.system.policy_keys import make_key

SETTINGS = '[privacy]\nunwitnessed = "allowed"\n'
CAP = cap_units(4.0, 1e-6)
POLICY = f"""format = "bedside-privacy-policy/1"
dataset = "studies"
[caps]
epoch = {CAP}
lifetime = {CAP}
local = 4000000
[requesters]
"role:privacy-officer" = {CAP}
"system:console" = {CAP}
[purposes]
quality = {CAP}
[public]
c = 3
devices = ["CR1"]
age_bands = ["0-17", "18-39", "40-64", "65+"]
findings = ["opacity"]
minutes = 600
bins = 10
l2_cells = 1
"""


def exit_code(error):
    return 3 if isinstance(error, RefusedError) else 5 if isinstance(error, UnavailableError) else 4


def edge(*arguments, code=0, typed=""):
    done = CliRunner().invoke(cli, [str(one) for one in arguments], input=typed)
    if isinstance(done.exception, BedsideError):
        assert exit_code(done.exception) == code, done.exception
        return ""
    assert done.exit_code == code, done.output
    return done.stdout


def sign_by_two(folder: Path) -> Path:
    """Make two trusted keys and return the policy signed by both."""
    keys = folder / "state" / "policy-keys"
    keys.mkdir(parents=True, exist_ok=True)
    signed = folder / "budget.dsse.json"
    (folder / "budget.toml").write_text(POLICY)
    for name in ("officer", "head"):
        make_key(name, folder / f"{name}.pem", None)
        (keys / f"{name}.pub").write_bytes((folder / f"{name}.pub").read_bytes())
    for path, name in ((folder / "budget.toml", "officer"), (signed, "head")):
        pem = folder / f"{name}.pem"
        edge("privacy", "policy", path, "--sign", pem, "--no-passphrase", "-o", signed)
    return signed


def box_of(folder: Path) -> tuple[object, ...]:
    """Return the options that name the folder and settings without a witness."""
    (folder / "box.toml").write_text(SETTINGS)
    return ("--state", folder / "state", "--config", folder / "box.toml")


def found(folder: Path) -> tuple[object, ...]:
    """Put the policy in force and open an epoch; return the options that name the folder."""
    box = box_of(folder)
    edge("privacy", "policy", sign_by_two(folder), *box)
    edge("privacy", "epoch", "open", "--from", "2020-01-01", "--days", 3650, *box)
    return box
