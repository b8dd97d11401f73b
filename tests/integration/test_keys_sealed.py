"""Keys of a real state folder: sealed, cut in the middle, opened, recovered, exported."""

import json
import os
import stat

import pytest
from click.testing import CliRunner

from bedside_core.errors import (
    InvalidConfigError,
    InvalidInputError,
    KeysSealedError,
    NotFoundError,
    StoreUnavailableError,
)
from bedside_core.evidence.entry import Kind
from bedside_edge.cli import cli
from bedside_edge.config import Config, parse_config
from bedside_edge.ports.key_protection import Protection
from bedside_edge.state_folder import open_folder
from bedside_edge.system import age_files, key_export, key_files, key_migration, tpm2
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom
from support.memory_sealer import MemorySealer
from support.swtpm import require_swtpm, software_tpm

WORDS = "correct horse battery staple"
SECRET = ("box.key", "log.key")


class PowerCutError(Exception):
    """The process ends here."""


@pytest.fixture
def passphrase(tmp_path, monkeypatch):
    path = tmp_path / "passphrase"
    path.write_text(WORDS)
    monkeypatch.setenv("BEDSIDE_KEYS_PASSPHRASE_FILE", str(path))
    return path


@pytest.fixture
def simulated(monkeypatch):
    """Sealing without its cost; held to the same contract as the real ones."""
    monkeypatch.setattr(key_files, "sealer_for", lambda _: MemorySealer())


@pytest.fixture
def identity(tmp_path):
    secret, recipient = age_files.make_identity()
    path = tmp_path / "recovery.txt"
    path.write_text(f"# public key: {recipient}\n{secret}\n")
    return path, recipient


def opened(folder, config=None):
    return open_folder(config or Config(), folder, SystemClock(), OsRandom())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in SECRET}


def box(folder):
    opened(folder).close()
    return contents(folder / "keys")


def run(*words, code=0):
    answer = CliRunner().invoke(cli, [str(word) for word in words])
    if code == 0 and answer.exception and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer


def test_sealing_leaves_no_plain_key_and_the_box_opens(tmp_path, simulated):
    folder = tmp_path / "state"
    before = box(folder)
    key_migration.seal(folder / "keys", MemorySealer(), "", OsRandom())
    assert key_migration.status(folder / "keys").protection is Protection.PASSPHRASE
    everything = b"".join(p.read_bytes() for p in (folder / "keys").iterdir())
    for name, content in before.items():
        assert not (folder / "keys" / name).exists()
        assert content[16:48] not in everything
    assert stat.S_IMODE((folder / "keys" / "sealed.json").stat().st_mode) == 0o600
    opened(folder).close()
    assert key_migration.secret_files(folder / "keys") == before
    key_migration.unseal(folder / "keys", OsRandom())
    assert contents(folder / "keys") == before
    assert not (folder / "keys" / "sealed.json").exists()
    opened(folder).close()


@pytest.mark.parametrize("to", ["sealed", "plain"])
def test_a_cut_at_any_step_leaves_one_whole_set(tmp_path, simulated, to):
    """Every system call that changes the folder is a place to be cut at; all are tried."""
    at, done = 0, False
    while not done:
        folder = tmp_path / f"cut-{at}" / "keys"
        folder.mkdir(parents=True, mode=0o700)
        before = {name: os.urandom(60) for name in SECRET}
        for name, content in before.items():
            key_files.write_plain(folder / name, content, OsRandom())
        if to == "plain":
            key_migration.seal(folder, MemorySealer(), "", OsRandom())
        with pytest.MonkeyPatch.context() as patch:
            _cut_after(patch, at)
            try:
                if to == "sealed":
                    key_migration.seal(folder, MemorySealer(), "", OsRandom())
                else:
                    key_migration.unseal(folder, OsRandom())
                done = True
            except PowerCutError:
                pass
        assert key_migration.secret_files(folder) == before
        found = key_migration.status(folder)
        # after the next read there is one set, never half of each
        assert set(found.plain) == (set() if found.protection != "file" else set(SECRET))
        if found.protection == "file":  # whoever tries again ends with one set and no leftovers
            key_migration.seal(folder, MemorySealer(), "", OsRandom())
        else:
            key_migration.unseal(folder, OsRandom())
        assert key_migration.secret_files(folder) == before
        assert len(list(folder.iterdir())) == (1 if found.protection == "file" else 2)
        at += 1
    assert at > 6


def _cut_after(patch, number):
    """Let `number` changes of the folder happen, then end the process."""
    left = [number]

    def counted(real):
        def call(*args, **more):
            if left[0] == 0:
                raise PowerCutError
            left[0] -= 1
            return real(*args, **more)

        return call

    for name in ("link", "unlink", "replace", "rename", "write"):
        patch.setattr(os, name, counted(getattr(os, name)))


def test_a_folder_without_keys_and_a_machine_without_a_tpm_are_told(tmp_path):
    assert isinstance(run("keys", "status", "--state", tmp_path, code=4).exception, NotFoundError)
    refused = run("keys", "seal", "--to", "file", "--state", tmp_path / "no", code=5)
    assert isinstance(refused.exception, StoreUnavailableError)
    if not tpm2.has_tpm():
        require_swtpm()
        with pytest.raises(KeysSealedError, match="no TPM"):
            tpm2.Tpm2Tools().seal(bytes(32))


def test_two_different_keys_open_nothing(tmp_path, simulated):
    folder = tmp_path / "state"
    box(folder)
    key_migration.seal(folder / "keys", MemorySealer(), "", OsRandom())
    key_files.write_plain(folder / "keys" / "box.key", b"another", OsRandom())
    with pytest.raises(StoreUnavailableError, match="differ"):
        opened(folder)


def test_every_changed_byte_of_the_sealed_file_is_noticed(tmp_path, simulated):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    key_files.write_plain(folder / "box.key", b"content", OsRandom())
    key_migration.seal(folder, MemorySealer(), "", OsRandom())
    document = json.loads((folder / "sealed.json").read_text())
    document["files"]["log.key"] = document["files"]["box.key"]  # moved to another name
    (folder / "sealed.json").write_text(json.dumps(document))
    with pytest.raises(StoreUnavailableError, match="damaged"):
        key_migration.secret_files(folder)
    for text in ("", "{}", '{"format": "bedside-keys-sealed-v2"}'):
        (folder / "sealed.json").write_text(text)
        with pytest.raises(StoreUnavailableError):
            key_migration.secret_files(folder)
    (folder / "sealed.json").chmod(0o644)
    with pytest.raises(StoreUnavailableError, match="closed to all others"):
        key_migration.secret_files(folder)


def test_a_new_box_never_writes_a_plain_key_and_the_settings_are_a_demand(tmp_path, passphrase):
    wanted = parse_config('[keys]\nprotection = "passphrase"')
    opened(tmp_path / "state", wanted).close()
    assert not any((tmp_path / "state" / "keys" / name).exists() for name in SECRET)
    opened(tmp_path / "state", wanted).close()
    opened(tmp_path / "state").close()  # without a demand keys are taken as they are kept
    box(tmp_path / "plain")
    with pytest.raises(InvalidConfigError, match="keys seal"):
        opened(tmp_path / "plain", wanted)
    with pytest.raises(InvalidConfigError, match="recovery_recipient"):
        parse_config('[keys]\nprotection = "tpm"')


def test_keys_sealed_to_the_tpm_open_recover_and_say_so_in_the_log(tmp_path, monkeypatch, identity):
    folder, (path, recipient) = tmp_path / "state", identity
    before = box(folder)
    with software_tpm(tmp_path / "tpm", monkeypatch) as tpm:
        refused = run("keys", "seal", "--to", "tpm", "--state", folder, code=4)
        assert isinstance(refused.exception, InvalidInputError)
        assert contents(folder / "keys") == before
        words = ("--recovery-recipient", recipient, "--state", folder)
        run("keys", "seal", "--to", "tpm", *words)
        facts = json.loads(run("keys", "status", "--state", folder, "--json").output)
        assert facts["protection"] == "tpm"
        assert facts["recovery"]
        assert facts["plain"] == []
        state = opened(folder)
        (entry,) = state.evidence.newest(limit=1, kinds=[Kind.ADMIN])
        assert entry.entry.refs == {"what": "keys-sealed", "keys_protection": "tpm"}
        with pytest.raises(StoreUnavailableError, match="stop it first"):
            raise run("keys", "seal", "--to", "file", "--state", folder, code=5).exception
        state.close()

        tpm.extend(0)  # a firmware update
        with pytest.raises(KeysSealedError):
            opened(folder)
        wrong = tmp_path / "wrong.txt"
        wrong.write_text(age_files.make_identity()[0])
        refused = run("keys", "recover", "--identity", wrong, "--state", folder, code=4)
        assert isinstance(refused.exception, InvalidInputError)
        run("keys", "recover", "--identity", path, "--state", folder)
        assert key_migration.secret_files(folder / "keys") == before
        assert key_migration.status(folder / "keys").recovery
        opened(folder).close()

        run("keys", "recover", "--identity", path, "--to", "file", "--state", folder)
        assert contents(folder / "keys") == before
        run("keys", "seal", "--to", "tpm", *words)

        # what this machine seals no other opens: the export holds the keys themselves
        data = key_export.export_keys(folder / "keys", WORDS, OsRandom())
        files = key_export.open_export(data, WORDS)
        assert "sealed.json" not in files
        assert {name: files[name] for name in SECRET} == before
