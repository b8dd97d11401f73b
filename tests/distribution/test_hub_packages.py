"""A real hub serves a repository made with its own commands; boxes read it over nng and TLS."""

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from bedside_core.errors import BedsideError, InvalidInputError
from bedside_flash.cli import cli as flash
from bedside_flash.cli import common as flash_common
from bedside_sync.distribution.assignment import Running, decide
from bedside_sync.distribution.chunks import ChunkStore
from bedside_sync.distribution.gateway import site_of
from bedside_sync.distribution.manifest import CHUNK
from bedside_sync.distribution.memory import Memory
from bedside_sync.distribution.sources import FolderSource, HubSource
from bedside_sync.distribution.updater import fetch_chunks
from bedside_sync.hub.cli import common as hub_common
from support.hub_child import HubProcess
from support.hub_sites import QUICK, Sites, command
from support.package_houses import look, noise

ROOT = Path(__file__).parents[2]
NOTHING_RUNS = Running(counters={}, floors={})


def tool(*words):
    ran = CliRunner().invoke(flash, [*map(str, words), "--json"], standalone_mode=False)
    if ran.exception is not None:
        raise ran.exception
    return json.loads(ran.output.splitlines()[-1])


class People:
    """Three people with every offline key, and a vendor."""

    def __init__(self, folder: Path, sites: Sites):
        self.folder, self.sites = folder, sites
        self.secret = ("--passphrase-file", sites.secret)
        for name in ("ada", "bo", "cy"):
            command("keys", "new", name, "--out", folder / f"{name}.key", *self.secret)
        tool("keys", "new", "acme", "--out", folder / "acme.key", *self.secret)

    def half(self, name):
        return self.folder / f"{name}.key.pub"

    def sign_drafts(self, *names):
        """Each signs what is theirs: a passphrase takes a fifth of a second to check."""
        for path in sorted((self.sites.hub / "repository" / "drafts").iterdir()):
            role = path.name.split(".")[1]
            theirs = {"acme"} if role == "vendor-acme" else {"ada", "bo", "cy"}
            theirs = {"ada"} if role in ("app", "policies") else theirs
            for name in names:
                if name in theirs and role != "assign":
                    key = ("--key", self.folder / f"{name}.key")
                    command("keys", "sign", path, *key, "--yes", *self.secret)


def acme_profile():
    text = (ROOT / "hw_profiles" / "generic" / "x86-64-v3.toml").read_text()
    text = text.replace('id = "generic-x86-64-v3"', 'id = "board"')
    return text.replace('vendor = "generic"', 'vendor = "acme"').encode()


@pytest.fixture(scope="module")
def consortium(tmp_path_factory):
    """Ceremony, a vendor, its profile and a model, assigned to a box, all by command."""
    folder = tmp_path_factory.mktemp("consortium")
    sites = Sites(folder, 1)
    at = ("--folder", sites.hub)
    people = People(folder, sites)
    ada, bo, cy = (people.half(name) for name in ("ada", "bo", "cy"))
    begun = command(
        *("keys", "ceremony", "--root", ada, "--root", bo, "--root", cy, "--targets", ada),
        *("--targets", bo, "--models", ada, "--models", bo, "--models", cy, "--app", ada),
        *("--policies", ada, *at),
    )
    assert [one["role"] for one in begun["drafts"] if one["missing"]] == [
        *("root", "targets", "app", "models", "policies")
    ]
    people.sign_drafts("ada", "bo")
    done = command("publish", "commit", *at)
    assert done["waiting"] == []
    command("keys", "add-vendor", "acme", "--key", people.half("acme"), *at)
    people.sign_drafts("ada", "bo", "acme")
    command("publish", "commit", *at)

    content = folder / "content"
    content.mkdir()
    (content / "profile.toml").write_bytes(acme_profile())
    profile = folder / "board"
    tool(
        *("build", content, profile, "--kind", "profile", "--name", "board", "--version", "1"),
        *("--vendor", "acme", "--counter", "1", "--key", folder / "acme.key", *people.secret),
    )
    role = folder / "vendor-acme.json"
    command("publish", "role", "vendor-acme", "--out", role, *at)
    tool("sign", profile, "--role", role, "--key", folder / "acme.key", "--yes", *people.secret)
    command("publish", "add", profile, *at)
    command("publish", "commit", *at)

    (content / "profile.toml").unlink()
    (content / "model.onnx").write_bytes(noise(CHUNK * 2 + 100))
    model = folder / "chest"
    tool(
        "build",
        content,
        model,
        "--kind",
        "model",
        "--name",
        "chest",
        "--version",
        "1.0.0",
        "--counter",
        "1",
    )
    command("publish", "add", model, *at)
    people.sign_drafts("ada", "cy")
    command("publish", "commit", *at)
    command(
        *("publish", "assign", "box-0", "hw_profiles/acme/board-1.json"),
        *("models/chest/1.0.0.json", "--window", "01:00-05:00", *at),
    )
    command("publish", "root", "--out", folder / "root.json", *at)
    return sites


@pytest.fixture(scope="module")
def hub(consortium):
    process = HubProcess(consortium.hub)
    yield process
    process.close()


def now():
    return int(time.time())


def a_site(consortium):
    site = consortium.sites["box-0"]
    return site, site_of(site.key.public_key().public_bytes_raw().hex())


def test_a_box_reads_checks_and_fetches_over_nng(consortium, hub, tmp_path):
    site, site_id = a_site(consortium)
    root = (consortium.folder / "root.json").read_bytes()
    with site.client(hub.url) as client:
        source = HubSource(client)
        seen = look(source, Memory(), root=root, now=now(), folder=tmp_path, site=site_id)
        assert seen.code == ""
        assert (seen.assignment.window.start, seen.assignment.window.end) == (60, 300)
        verdicts = decide(seen.assignment, seen.signed, NOTHING_RUNS)
        assert [one.code for one in verdicts] == ["", ""]
        store, told = ChunkStore(tmp_path / "chunks"), []
        model = verdicts[1].manifest
        fetched = fetch_chunks(source, store, model, lambda done, of: told.append((done, of)))
        assert fetched == model.size == CHUNK * 2 + 100
        assert told == [(0, fetched), (CHUNK, fetched), (2 * CHUNK, fetched), (fetched, fetched)]
        # a cut in the middle: only what is missing comes again
        store.prune(model.files[0].chunks[:1])
        assert fetch_chunks(source, store, model) == model.size - CHUNK
        store.assemble(model, tmp_path / "model")
        again = look(source, seen.memory, root=root, now=now(), folder=tmp_path, site=site_id)
        assert again.code == ""
        with pytest.raises(BedsideError) as refused:
            list(source.read("online/timestamp.pem"))
        assert refused.value.code == "forbidden-path"


def test_a_hub_that_dies_in_the_middle_leaves_whole_chunks(consortium, tmp_path):
    _, site_id = a_site(consortium)
    root = (consortium.folder / "root.json").read_bytes()
    seen = look(
        FolderSource(consortium.hub / "repository"),
        Memory(),
        root=root,
        now=now(),
        folder=tmp_path,
        site=site_id,
    )
    model = decide(seen.assignment, seen.signed, NOTHING_RUNS)[1].manifest
    store = ChunkStore(tmp_path / "chunks")
    source = FolderSource(consortium.hub / "repository")

    class Dies:
        def chunks(self, wanted):
            yield from list(source.chunks(dict(list(wanted.items())[:1])))
            raise ConnectionResetError  # whatever ends the process

    with pytest.raises(ConnectionResetError):
        fetch_chunks(Dies(), store, model)
    assert len(store.held()) == 1
    assert fetch_chunks(source, store, model) == model.size - CHUNK


def test_a_stick_made_by_command_is_verified_by_command(consortium, tmp_path):
    _, site_id = a_site(consortium)
    stick = tmp_path / "stick"
    stick.mkdir()
    at = ("--folder", consortium.hub)
    made = command("publish", "export-usb", stick, "--site", "box-0", "--days", "3", *at)
    assert made["targets"] == 3
    root = consortium.folder / "root.json"
    found = tool("verify", stick, "--root", root)
    assert found["ok"], found
    assert {one["path"] for one in found["items"]} == {
        *("hw_profiles/acme/board-1.json", "models/chest/1.0.0.json")
    }
    seen = look(
        FolderSource(stick),
        Memory(),
        root=root.read_bytes(),
        now=now() + 2 * 86_400,
        folder=tmp_path,
        site=site_id,
    )
    assert seen.code == ""
    chunk = next(path for path in (stick / "chunks").rglob("*") if path.is_file())
    chunk.write_bytes(b"x" + chunk.read_bytes()[1:])
    with pytest.raises(BedsideError) as refused:
        tool("verify", stick, "--root", root)
    assert refused.value.code == "chunk-mismatch"


def test_a_package_folder_is_verified_with_its_bundle(consortium):
    package = consortium.folder / "board"
    key = ("--key", consortium.folder / "acme.key.pub")
    found = tool("verify", package, *key)
    assert found["ok"]
    assert found["bundle"]
    with pytest.raises(BedsideError) as refused:
        tool("verify", package, "--key", consortium.folder / "ada.key.pub")
    assert refused.value.code == "untrusted-signature"


def test_a_profile_that_says_another_owner_is_not_built(tmp_path):
    (tmp_path / "profile.toml").write_bytes(acme_profile())
    for vendor, name in (("acme", "other"), ("other", "board")):
        with pytest.raises(InvalidInputError, match="the profile is acme/board"):
            tool(
                *("build", tmp_path, tmp_path / "out", "--kind", "profile", "--vendor", vendor),
                *("--name", name, "--version", "1", "--counter", "1"),
            )
    assert not (tmp_path / "out").exists()


def test_status_names_what_is_valid_and_until_when(consortium):
    told = command("keys", "status", "--folder", consortium.hub)
    assert {one["role"] for one in told["roles"]} >= {"root", "models", "vendor-acme", "assign"}
    assert all(one["valid"] for one in told["roles"])
    assert all(one["expires"] > now() for one in told["roles"])
    listed = command("publish", "status", "--folder", consortium.hub)
    assert set(listed["packages"]) == {"hw_profiles/acme/board-1.json", "models/chest/1.0.0.json"}


def test_a_hub_that_is_down_is_said_so(consortium, tmp_path):
    site, _ = a_site(consortium)
    with pytest.raises(BedsideError) as refused:
        site.client("tls+tcp://127.0.0.1:9", QUICK)
    assert refused.value.code == "hub-unavailable"


@pytest.mark.parametrize("ask", [hub_common.passphrase, flash_common.passphrase])
def test_a_file_that_holds_no_passphrase_is_named_and_no_traceback(ask, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="no text"):
        ask(path)
