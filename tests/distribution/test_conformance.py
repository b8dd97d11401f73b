"""python-tuf's client answers rightly over our fetcher, our gateway and real nng.

Scenarios of tuf-conformance, which cannot be installed here, written again: each repository is
made on the spot and read over mutual TLS. Names follow the suite's.
"""

import datetime as dt
import json

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile

from support.package_houses import DAY, START
from support.tuf_simulator import LATER, Line, Night, Simulator

PAST = dt.datetime.fromtimestamp(START, dt.UTC) - dt.timedelta(days=5)
UNTRUSTED, ROLLBACK = "metadata-untrusted", "metadata-rollback"
EXPIRED, MISMATCH, INVALID = "metadata-expired", "metadata-mismatch", "invalid-metadata"


@pytest.fixture(scope="module")
def line():
    made = Line()
    yield made
    made.server.close()


@pytest.fixture
def repo(tmp_path):
    return Simulator(tmp_path / "repository")


@pytest.fixture
def night(line, repo, tmp_path):
    return Night(line, repo, tmp_path / "scratch")


# --- refresh ---------------------------------------------------------------------------------


def test_first_refresh_asks_in_the_order_of_the_specification(night):
    assert night.refresh() == ("", {})
    assert night.line.asked == [
        *("metadata/2.root.json", "metadata/timestamp.json", "metadata/1.snapshot.json"),
        "metadata/1.targets.json",
    ]
    assert [night.version(role) for role in ("root", "timestamp", "snapshot", "targets")] == [
        *(1, 1, 1, 1)
    ]


def test_a_second_refresh_asks_for_what_may_be_new_only(night):
    night.refresh()
    assert night.refresh()[0] == ""
    assert night.line.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_a_new_timestamp_brings_what_it_names(night, repo):
    night.refresh()
    repo.targets.version += 1
    repo.update()
    assert night.refresh()[0] == ""
    assert (night.version("timestamp"), night.version("targets")) == (2, 2)


@pytest.mark.parametrize("scheme", ["ed25519", "ecdsa"])
def test_key_types(line, tmp_path, scheme):
    repo = Simulator(tmp_path / "repository", scheme)
    repo.add_target(
        repo.delegate(repo.targets, "models", ["models/*/*"], scheme=scheme),
        "models/a/1",
        b"content",
    )
    repo.update()
    code, read = Night(line, repo, tmp_path / "scratch").refresh("models/a/1")
    assert code == ""
    assert read["models/a/1"].data == b"content"


# --- root ------------------------------------------------------------------------------------


def test_many_root_rotations_in_one_refresh(night, repo):
    for _ in range(5):
        repo.new_keys("root", keep_old_signers=True)
        repo.publish_root(bump=True)
        repo.signers["root"] = repo.signers["root"][:1]
    assert night.refresh()[0] == ""
    assert night.version("root") == 6


def test_a_root_that_skips_a_version_is_not_taken(night, repo):
    repo.root.version = 3
    (repo.publish_root()).rename(repo.folder / "metadata" / "2.root.json")
    assert night.refresh()[0] == ROLLBACK
    assert night.version("root") == 1


def test_a_root_with_too_few_signatures(night, repo):
    repo.root.roles["root"].threshold = 2
    repo.root.add_key(CryptoSigner.generate_ed25519().public_key, "root")
    repo.publish_root(bump=True)
    assert night.refresh()[0] == UNTRUSTED


def test_a_root_with_one_key_s_signature_twice(night, repo):
    repo.root.roles["root"].threshold = 2
    repo.root.add_key(CryptoSigner.generate_ed25519().public_key, "root")
    path = repo.publish_root(bump=True)
    data = json.loads(path.read_bytes())
    data["signatures"] *= 2
    path.write_text(json.dumps(data))
    assert night.refresh()[0] in (UNTRUSTED, INVALID)
    assert night.version("root") == 1


def test_an_expired_root_on_the_way_is_passed_and_an_expired_last_one_refused(night, repo):
    repo.root.expires = PAST
    repo.publish_root(bump=True)
    assert night.refresh()[0] == EXPIRED
    assert night.version("root") == 2  # it was signed: it is kept
    repo.root.expires = LATER
    repo.publish_root(bump=True)
    assert night.refresh()[0] == ""
    assert night.version("root") == 3


def test_new_timestamp_and_snapshot_keys_restart_their_versions(night, repo):
    repo.timestamp.version = repo.snapshot.version = 2**31
    repo.publish(root=False)
    night.refresh()
    assert night.version("snapshot") == 2**31
    for role in ("timestamp", "snapshot"):
        repo.new_keys(role)
    repo.publish_root(bump=True)
    repo.timestamp.version = repo.snapshot.version = 1
    repo.publish(root=False)
    assert night.refresh()[0] == ""
    assert (night.version("timestamp"), night.version("snapshot")) == (1, 1)


def test_a_root_longer_than_the_limit_is_not_read_to_its_end(night, repo):
    repo.write("metadata/2.root.json", b"{" + b" " * 3_000_000)
    assert night.refresh()[0] == MISMATCH
    assert night.line.asked.count("metadata/2.root.json") == 1


# --- timestamp, snapshot, targets --------------------------------------------------------------


def test_a_timestamp_of_the_same_version_changes_nothing(night, repo):
    night.refresh()
    before = night.memory.metadata["timestamp.json"]
    repo.timestamp.expires = LATER + dt.timedelta(days=1)
    repo.publish_timestamp()
    assert night.refresh()[0] == ""
    assert night.memory.metadata["timestamp.json"] == before


def test_an_older_timestamp(night, repo):
    old = (repo.folder / "metadata" / "timestamp.json").read_bytes()
    repo.update()
    night.refresh()
    repo.write("metadata/timestamp.json", old)
    assert night.refresh()[0] == ROLLBACK
    assert night.version("timestamp") == 2


def test_a_timestamp_that_names_an_older_snapshot(night, repo):
    repo.update()
    night.refresh()
    repo.timestamp.version += 1
    repo.snapshot.version = 1
    repo.publish_snapshot()
    assert night.refresh()[0] == ROLLBACK


def test_a_snapshot_of_another_version_than_named(night, repo):
    repo.timestamp.snapshot_meta = MetaFile(2)
    repo.publish_timestamp()
    (repo.folder / "metadata" / "1.snapshot.json").rename(
        repo.folder / "metadata" / "2.snapshot.json"
    )
    assert night.refresh()[0] == ROLLBACK


def test_a_snapshot_that_forgets_a_role(night, repo):
    repo.delegate(repo.targets, "models", ["models/*/*"])
    repo.update()
    night.refresh()
    del repo.snapshot.meta["models.json"]
    repo.snapshot.version += 1
    repo.timestamp.version += 1
    repo.publish_snapshot()
    assert night.refresh()[0] == INVALID


def test_a_snapshot_that_names_an_older_role(night, repo):
    repo.targets.version = 5
    repo.update()
    night.refresh()
    repo.targets.version = 4
    repo.update()
    assert night.refresh()[0] == ROLLBACK


def test_targets_of_another_version_than_named(night, repo):
    repo.snapshot.meta["targets.json"] = MetaFile(2)
    repo.publish_snapshot()
    (repo.folder / "metadata" / "1.targets.json").rename(
        repo.folder / "metadata" / "2.targets.json"
    )
    assert night.refresh()[0] == ROLLBACK


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_expired(night, repo, role):
    getattr(repo, role).expires = PAST
    repo.update()
    assert night.refresh()[0] == EXPIRED


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_signed_by_nobody_entitled(night, repo, role):
    repo.signers[role] = [CryptoSigner.generate_ed25519()]
    repo.update()
    assert night.refresh()[0] == UNTRUSTED
    assert night.version(role) == 0


@pytest.mark.parametrize("role", ["timestamp", "1.snapshot", "1.targets"])
@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[" * 5000])
def test_garbage(night, repo, role, data):
    repo.write(f"metadata/{role}.json", data)
    assert night.refresh()[0] in (INVALID, MISMATCH)


@pytest.mark.parametrize("name", ["timestamp", "1.snapshot", "1.targets"])
def test_missing(night, repo, name):
    (repo.folder / "metadata" / f"{name}.json").unlink()
    assert night.refresh()[0] == INVALID


def test_what_was_seen_before_a_failure_is_kept(night, repo):
    """A timestamp once seen is not forgotten because the snapshot behind it was broken."""
    old = (repo.folder / "metadata" / "timestamp.json").read_bytes()
    repo.update()
    repo.write("metadata/2.snapshot.json", b"{}")
    assert night.refresh()[0] == MISMATCH
    assert night.version("timestamp") == 2
    repo.write("metadata/timestamp.json", old)
    assert night.refresh()[0] == ROLLBACK


# --- delegations and targets -------------------------------------------------------------------


def test_a_terminating_role_ends_the_search(night, repo):
    first = repo.delegate(repo.targets, "first", ["models/*/*"])
    second = repo.delegate(repo.targets, "models", ["models/*/*"])
    repo.add_target(second, "models/a/1", b"second")
    repo.update()
    code, read = night.refresh("models/a/1")
    assert (code, read) == ("", {"models/a/1": None})
    assert "metadata/1.models.json" not in night.line.asked
    assert not first.targets


def test_a_role_is_asked_only_for_paths_it_owns(night, repo):
    acme = repo.delegate(repo.targets, "vendor-acme", ["hw_profiles/acme/*"])
    repo.delegate(repo.targets, "vendor-bolt", ["hw_profiles/bolt/*"])
    repo.add_target(acme, "hw_profiles/bolt/x", b"not acme's")
    repo.add_target(acme, "hw_profiles/acme/x", b"acme's")
    repo.add_target(acme, "hw_profiles/acme/deep/x", b"two levels")
    repo.update()
    code, read = night.refresh("hw_profiles/bolt/x", "hw_profiles/acme/x")
    assert code == ""
    assert read["hw_profiles/bolt/x"] is None
    assert read["hw_profiles/acme/x"].data == b"acme's"
    assert night.refresh("hw_profiles/acme/deep/x")[0] == "invalid-target"  # nobody owns it


def test_a_delegated_role_that_the_snapshot_does_not_know(night, repo):
    repo.delegate(repo.targets, "models", ["models/*/*"])
    repo.targets.version += 1
    repo.update()
    del repo.snapshot.meta["models.json"]
    repo.snapshot.version += 1
    repo.timestamp.version += 1
    repo.publish_snapshot()
    assert night.refresh("models/a/1")[0] == INVALID


def test_a_cached_role_is_not_used_under_a_new_delegator(night, repo):
    """The flaw python-tuf 7.0.1 closed: keys replaced in `targets`, the role not signed anew."""
    models = repo.delegate(repo.targets, "models", ["models/*/*"])
    repo.add_target(models, "models/a/1", b"content")
    repo.update()
    assert night.refresh("models/a/1")[0] == ""
    old = repo.signers["models"]
    repo.targets.revoke_key(old[0].public_key.keyid, "models")
    repo.targets.add_key(CryptoSigner.generate_ed25519().public_key, "models")
    repo.targets.version += 1
    repo.update()
    assert night.refresh("models/a/1")[0] == UNTRUSTED


def test_a_target_of_several_blocks_comes_whole(night, repo):
    models = repo.delegate(repo.targets, "models", ["models/*/*"])
    data = bytes(range(256)) * 4000  # 1,024,000 bytes: more than one answer
    repo.add_target(models, "models/a/1", data)
    repo.update()
    code, read = night.refresh("models/a/1")
    assert code == ""
    assert read["models/a/1"].data == data
    assert sum(path.startswith("targets/models/a/") for path in night.line.asked) == 2


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"X" + d[1:]])
def test_a_target_of_another_length_or_digest(night, repo, change):
    models = repo.delegate(repo.targets, "models", ["models/*/*"])
    path = repo.add_target(models, "models/a/1", b"content")
    repo.update()
    path.write_bytes(change(b"content"))
    assert night.refresh("models/a/1")[0] == MISMATCH


def test_a_target_that_is_named_and_not_there(night, repo):
    models = repo.delegate(repo.targets, "models", ["models/*/*"])
    repo.add_target(models, "models/a/1", b"content").unlink()
    repo.update()
    assert night.refresh("models/a/1")[0] == INVALID


def test_the_clock_of_the_box_is_the_clock_of_every_check(night, repo):
    assert night.refresh(now=START + 29 * DAY)[0] == ""
    assert night.refresh(now=START + 31 * DAY)[0] == EXPIRED
    assert night.refresh(now=START)[0] == "time-floor"
