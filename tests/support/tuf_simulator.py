"""A repository written on the spot, right or wrong in any way, served by the real gateway over nng.

After python-tuf's own `repository_simulator.py` and the scenarios of tuf-conformance: one key a
role, versions and signatures under the test's control, files in the hub's layout.
"""

import datetime as dt
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from bedside_core.errors import BedsideError
from bedside_sync.distribution.gateway import Gateway
from bedside_sync.distribution.memory import Memory
from bedside_sync.distribution.sources import HubSource
from bedside_sync.distribution.updater import opened
from bedside_sync.transport_nng import Client, Identity, Server, Timeouts
from support.certificates import Authority
from support.package_houses import START

TOP = ("root", "timestamp", "snapshot", "targets")
LATER = dt.datetime.fromtimestamp(START, dt.UTC) + dt.timedelta(days=30)
QUICK = Timeouts(receive=5000, send=5000)


class Simulator:
    """Metadata as objects; `publish` writes them with the signatures they would have."""

    def __init__(self, folder: Path, scheme: str = "ed25519"):
        self.folder = folder
        make = getattr(CryptoSigner, f"generate_{scheme}")
        self.signers = {role: [make()] for role in TOP}
        self.root = Root(version=1, expires=LATER, consistent_snapshot=True)
        self.timestamp = Timestamp(version=1, expires=LATER)
        self.snapshot = Snapshot(version=1, expires=LATER)
        self.targets = Targets(version=1, expires=LATER)
        self.delegated: dict[str, Targets] = {}
        for role in TOP:
            self.root.add_key(self.signers[role][0].public_key, role)
        self.files: dict[str, bytes] = {}
        self.publish()
        self.bootstrap = (folder / "metadata" / "1.root.json").read_bytes()

    # --- changing --------------------------------------------------------------------------

    def delegate(self, above: Targets, name: str, paths, *, terminating=True, scheme="ed25519"):
        signer = getattr(CryptoSigner, f"generate_{scheme}")()
        self.signers[name] = [signer]
        if above.delegations is None:
            above.delegations = Delegations({}, {})
        above.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, list(paths))
        above.add_key(signer.public_key, name)
        made = self.delegated.setdefault(name, Targets(version=1, expires=LATER))
        self.snapshot.meta[f"{name}.json"] = MetaFile(made.version)
        return made

    def add_target(self, role: Targets, path: str, data: bytes):
        target = TargetFile.from_data(path, data, ["sha256"])
        role.targets[path] = target
        folder, _, name = path.rpartition("/")
        place = f"targets/{folder}/{target.hashes['sha256']}.{name}".replace("//", "/")
        self.write(place, data)
        return self.folder / place

    def new_keys(self, role: str, *, keep_old_signers=False):
        """Replace a top role's key in the root, which is not published yet."""
        for old in self.signers[role]:
            self.root.revoke_key(old.public_key.keyid, role)
        signer = CryptoSigner.generate_ecdsa()
        self.root.add_key(signer.public_key, role)
        self.signers[role] = [signer, *(self.signers[role] if keep_old_signers else [])]

    # --- writing ---------------------------------------------------------------------------

    def signed(self, role: str, what) -> bytes:
        metadata = Metadata(what)
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def publish_root(self, *, bump=False) -> Path:
        if bump:
            self.root.version += 1
        name = f"metadata/{self.root.version}.root.json"
        return self.write(name, self.signed("root", self.root))

    def publish(self, *, root=True):
        """Write everything; snapshot and timestamp name what is written."""
        if root:
            self.publish_root()
        for name, targets in {"targets": self.targets, **self.delegated}.items():
            self.snapshot.meta[f"{name}.json"] = MetaFile(targets.version)
            self.write(f"metadata/{targets.version}.{name}.json", self.signed(name, targets))
        self.publish_snapshot()

    def publish_snapshot(self):
        data = self.signed("snapshot", self.snapshot)
        self.write(f"metadata/{self.snapshot.version}.snapshot.json", data)
        self.timestamp.snapshot_meta = MetaFile.from_data(self.snapshot.version, data, ["sha256"])
        self.publish_timestamp()

    def publish_timestamp(self):
        self.write("metadata/timestamp.json", self.signed("timestamp", self.timestamp))

    def update(self):
        """A new version of snapshot and timestamp over what there is."""
        self.snapshot.version += 1
        self.timestamp.version += 1
        self.publish(root=False)


class Line:
    """The real gateway behind a real server, and clients of one box."""

    def __init__(self):
        self.folder: Path | None = None
        authority = Authority()

        def identity(name):
            issued = authority.issue(name)
            return Identity(certificate=issued.certificate, key=issued.key, authority=authority.pem)

        self._box = identity("box-1")
        self.asked: list[str] = []
        self.server = Server("tls+tcp://127.0.0.1:0", identity("hub"), self._answer, threads=2)

    def _answer(self, peer, request):
        self.asked.append(request.text("path"))
        return Gateway(self.folder, lambda _: "s0001").answer(peer, request)

    def client(self) -> Client:
        return Client(self.server.url, self._box, "hub", timeouts=QUICK)


class Night:
    """A client over nng with its own memory: what `tuf-conformance` calls a client."""

    def __init__(self, line: Line, simulator: Simulator, scratch: Path):
        self.line, self.simulator, self.scratch = line, simulator, scratch
        self.memory = Memory()

    def refresh(self, *targets: str, now: int = START):
        """Refresh and read targets; returns (code, what was read)."""
        self.line.folder, self.line.asked = self.simulator.folder, []
        read = {}
        try:
            with (
                self.line.client() as client,
                opened(
                    HubSource(client),
                    self.memory,
                    root=self.simulator.bootstrap,
                    now=now,
                    scratch=self.scratch,
                ) as refresh,
            ):
                try:
                    refresh.refresh()
                    for path in targets:
                        read[path] = refresh.target(path)
                finally:
                    self.memory = refresh.memory()
        except BedsideError as error:
            return error.code, read
        return "", read

    def version(self, role: str) -> int:
        """The version this client trusts of a role; 0 when it has none."""
        files = self.memory.metadata
        if role == "root":
            return max(int(n.split("/")[1].split(".")[0]) for n in files if n.startswith("root_"))
        data = files.get(f"{role}.json")
        return Metadata.from_bytes(data).signed.version if data else 0
