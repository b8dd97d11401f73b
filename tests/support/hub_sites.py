"""A consortium made with the hub's own commands: administrators, members, rounds, real boxes."""

import copy
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bedside_core.errors import BedsideError, HubRefusedError
from bedside_core.signatures import Algorithm, PublicKey
from bedside_sync.box import BoxKeys, BoxRole
from bedside_sync.calls import HubCalls
from bedside_sync.helper import HelperKeys, HelperRole
from bedside_sync.hub.cli import cli
from bedside_sync.joining import Welcome, check_welcome, make_request
from bedside_sync.journal import FileJournal
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.machines import Box
from bedside_sync.secagg.manifest import Purpose, SitePolicy
from bedside_sync.secagg.roster import read_roster
from bedside_sync.transport_nng import Client, Identity, Timeouts

CODE = "c0" * 32
QUICK = Timeouts(receive=800, send=2000, resend=400)  # a hub that died is noticed soon


def command(*words, fails=False):
    """Run one of the hub's commands in this process; returns its JSON, or the error raised."""
    ran = CliRunner().invoke(cli, [*map(str, words), "--json"], standalone_mode=False)
    if ran.exception is not None:
        if fails and isinstance(ran.exception, BedsideError):
            return ran.exception
        raise ran.exception
    assert not fails, ran.output
    return json.loads(ran.output.splitlines()[-1])


SLOW = Timeouts(receive=20_000, send=20_000)


class Site:
    """One hospital's box: keys, welcome, journals; every object below is made anew when used."""

    def __init__(self, name: str, folder: Path, organisation: str):
        self.name, self.folder, self.organisation = name, folder, organisation
        folder.mkdir(parents=True)
        self.key = Ed25519PrivateKey.generate()
        self.transport = ec.generate_private_key(ec.SECP256R1())
        self.welcome: Welcome | None = None

    def request(self) -> Path:
        signed = make_request(
            box=self.name,
            organisation=self.organisation,
            helper=True,
            identity=self.key.public_key().public_bytes_raw(),
            transport=self.transport,
            sign=self.key.sign,
        )
        path = self.folder / "request.json"
        path.write_bytes(signed.encode())
        return path

    def read_welcome(self, path: Path) -> None:
        self.welcome = decode(Welcome, path.read_bytes().strip())
        check_welcome(self.welcome, self.name, self.transport.public_key())

    @property
    def identity(self) -> Identity:
        key = self.transport.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Identity(
            certificate=self.welcome.certificate,
            key=key.decode(),
            authority=self.welcome.authority,
        )

    def client(self, url: str, timeouts=QUICK) -> Client:
        return Client(url, self.identity, self.welcome.server_name, timeouts=timeouts)

    def box(self, values) -> BoxRole:
        keys = BoxKeys(
            box=self.name,
            sign=self.key.sign,
            hub=PublicKey(algorithm=Algorithm.ED25519, raw=bytes.fromhex(self.welcome.hub_key)),
            random=os.urandom,
            now=lambda: int(time.time()),
        )
        policy = SitePolicy(
            purposes=frozenset({Purpose.COLLECT}),
            codes=frozenset({bytes.fromhex(CODE)}),
            models=frozenset(),
            least_boxes=3,
            longest=10_000_000,
            rho_a_round=10**13,
        )
        return BoxRole(FileJournal(self.folder / "box"), keys, Values(values), policy)

    def helper(self) -> HelperRole:
        keys = HelperKeys(
            box=self.name,
            sign=self.key.sign,
            now=lambda: int(time.time()),
            random=os.urandom,
            wrap=lambda secret, context: context + secret,
            unwrap=lambda stored, context: stored[len(context) :],
        )
        return HelperRole(FileJournal(self.folder / "helper"), keys)


class Values:
    """A source whose vector is known."""

    def __init__(self, values):
        self.values = values

    def permit(self, manifest, cost):
        pass

    def vector(self, manifest):
        return self.values


class Sites:
    """The consortium: two administrators, a hub's folder, members approved one by one."""

    def __init__(self, folder: Path, count: int = 4, url: str = "tls+tcp://127.0.0.1:7443"):
        self.folder, self.hub = folder, folder / "hub"
        self.secret = folder / "passphrase"
        self.secret.write_text("correct horse battery staple\n")
        self.admins = [folder / f"{name}.key" for name in ("anna", "ben")]
        for path, organisation in zip(self.admins, ("org-a", "org-b"), strict=True):
            command(
                *("admin", "key", path.stem, "--organisation", organisation),
                *("--out", path, "--passphrase-file", self.secret),
            )
        halves = [word for path in self.admins for word in ("--admin", f"{path}.pub")]
        command(
            *("init", "lungs", *halves, "--server-name", "hub.test"),
            *("--url", url, "--folder", self.hub),
        )
        self.sites: dict[str, Site] = {}
        for number in range(count):
            self.join(f"box-{number}", f"hospital-{number}")

    def copied(self, folder: Path) -> "Sites":
        """The same consortium in another folder, for a test that changes it."""
        shutil.copytree(self.folder, folder)
        other = copy.copy(self)
        other.folder, other.hub = folder, folder / "hub"
        other.secret = folder / self.secret.name
        other.admins = [folder / path.name for path in self.admins]
        other.sites = {name: copy.copy(site) for name, site in self.sites.items()}
        for name, site in other.sites.items():
            site.folder = folder / name
        return other

    def sign(self, path: Path, by=None) -> None:
        for key in by or self.admins:
            command(
                *("admin", "sign", path, "--key", key, "--yes"),
                *("--passphrase-file", self.secret),
            )

    def join(self, name: str, organisation: str) -> Site:
        site = Site(name, self.folder / name, organisation)
        self.sites[name] = site
        self.approve(site)
        return site

    def approve(self, site: Site) -> None:
        """Join, or renew when the site is a member."""
        entry, welcome = site.folder / "entry.json", site.folder / "welcome.json"
        command("roster", "propose", site.request(), "--out", entry, "--folder", self.hub)
        self.sign(entry)
        command("roster", "approve", entry, "--out", welcome, "--folder", self.hub)
        site.read_welcome(welcome)

    def revoke(self, name: str) -> None:
        entry = self.folder / "revoke.json"
        command("roster", "revoke", name, "--out", entry, "--folder", self.hub)
        self.sign(entry)
        command("roster", "approve", entry, "--folder", self.hub)

    def plan(self, name="census-1", *, length=3000, open_for="2s", expires="1h", **changes) -> Path:
        settings = {
            "round": name,
            "task": "census",
            "purpose": "collect",
            "model": "11" * 32,
            "code": CODE,
            "settings": "5e" * 32,
            "helpers": list(self.sites)[:4],
            "scale": 64,
            "sensitivity2": 4096,
            "largest": 64,
            "noise_multiplier": "2",
            "least_boxes": 4,  # all of them: a busy machine makes nobody late
            "most_boxes": 1000,
            "patients_a_box": 100,
            "open_for": open_for,
            "expires_after": expires,
        } | changes
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        lines += ["[[segments]]", 'name = "all"', f"length = {length}"]
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join(lines))
        return path

    def open_round(self, url: str, name="census-1", **changes) -> None:
        """Announce, let the helpers hand in their keys over the wire, sign, open."""
        plan, manifest = self.plan(name, **changes), self.folder / f"{name}.manifest.json"
        words = ("round", "propose", plan, "--out", manifest, "--folder", self.hub)
        awaited = command(*words)["awaited"]
        for box in awaited:
            with self.sites[box].client(url) as client:
                calls = HubCalls(client)
                for wanted in calls.upcoming():
                    calls.helper_key(wanted, self.sites[box].helper().announce(wanted))
        assert command(*words)["awaited"] == []
        self.sign(manifest)
        assert command("round", "open", manifest, "--folder", self.hub)["state"] == "open"

    def report(self, site, url: str, values, name="census-1", timeouts=QUICK) -> None:
        """Take a box as far as its receipt, whatever it had done before."""
        with site.client(url, timeouts) as client:
            calls = HubCalls(client)
            role = site.box(values)
            if role.state(name) is Box.IDLE:
                role.open(self.manifest(calls, name), self.roster(calls))
            if role.state(name) is Box.OPENED:
                role.seal(name)
            if role.state(name) is Box.SEALED:
                role.send(name, calls)

    def help(self, site: Site, url: str, name="census-1") -> None:
        with site.client(url) as client:
            calls = HubCalls(client)
            try:
                signed = self.manifest(calls, name)
            except LookupError:  # it is over
                return
            try:
                site.helper().help(
                    signed.manifest, self.roster(calls), calls, own=lambda: frozenset()
                )
            except HubRefusedError:
                return  # not so far yet

    def manifest(self, calls: HubCalls, name: str):
        for signed in calls.rounds():
            if signed.manifest.round == name:
                return signed
        raise LookupError(name)

    def roster(self, calls: HubCalls):
        return read_roster(next(iter(self.sites.values())).welcome.root, calls.roster(0))

    def show(self, name="census-1"):
        return command("round", "show", name, "--folder", self.hub)

    def wait(self, state: str, name="census-1", seconds=20.0) -> None:
        deadline = time.monotonic() + seconds
        while self.show(name)["state"] != state:
            assert time.monotonic() < deadline, self.show(name)
            time.sleep(0.05)


def vectors(names, length=3000) -> dict:
    """Fresh integers for every box."""
    rng = np.frombuffer(os.urandom(8 * len(names) * length), np.int64) >> 44
    return dict(zip(names, rng.reshape(len(names), length), strict=True))
