"""Whatever a repository, a hub or a stick serves: what is not signed by its owner never arrives."""

import json
import shutil
from dataclasses import replace

import pytest
from tuf.api.metadata import Metadata, Targets

from bedside_core.errors import (
    BedsideError,
    ChunkMismatchError,
    ForbiddenPathError,
    InvalidInputError,
    InvalidMetadataError,
    TargetNotSignedError,
)
from bedside_sync.distribution import roles
from bedside_sync.distribution.assignment import Running, decide
from bedside_sync.distribution.chunks import ChunkStore
from bedside_sync.distribution.disk import write_durably
from bedside_sync.distribution.gateway import site_of
from bedside_sync.distribution.manifest import CHUNK
from bedside_sync.distribution.memory import Memory
from bedside_sync.distribution.sources import FolderSource, HubSource
from bedside_sync.distribution.updater import fetch_chunks
from support.package_houses import DAY, START, Direct, House, noise

NOTHING_RUNS = Running(counters={}, floors={})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two vendors, a model, an assignment; copied for each test."""
    folder = tmp_path_factory.mktemp("house")
    house = House(folder).begin()
    house.add_vendor("acme")
    house.add_vendor("bolt")
    profile = {"kind": "profile", "name": "board", "version": "1", "vendor": "acme"}
    first = house.publish({"profile.toml": b"one"}, **profile)
    model = house.publish({"model.onnx": noise(3000)})
    house.assign(first, model)
    return house


@pytest.fixture
def house(built, tmp_path):
    shutil.copytree(built.folder, tmp_path / "house")
    return House(tmp_path / "house", now=built.now, keys=dict(built.keys))


@pytest.fixture
def box(tmp_path):
    return tmp_path / "box"


def source(house, peer="box-1"):
    return HubSource(Direct(house.gateway, peer))


def see(house, box, memory=None, **given):
    return house.refresh(box, memory, source=given.pop("source", None) or source(house), **given)


def metadata(house):
    return house.repository.folder / "metadata"


def rewrite(path, change, *private):
    """Change metadata and sign it with the keys given, and no others."""
    read = Metadata.from_bytes(path.read_bytes())
    change(read.signed)
    data = roles.written(read.signed)
    for key in private:
        data = roles.sign(data, key)
    path.write_bytes(data)
    return data


def online(house, role):
    return house.repository._online(role)


def test_what_owner_and_assignment_both_name_is_installed(house, box):
    seen = see(house, box)
    assert seen.code == ""
    verdicts = decide(seen.assignment, seen.signed, NOTHING_RUNS)
    assert [one.code for one in verdicts] == ["", ""]
    assert seen.memory.serial == 1
    assert seen.memory.time_floor == START
    assert {"root", "timestamp", "snapshot", "targets", "assign"} <= set(seen.memory.floors)
    store = ChunkStore(box / "chunks")
    for verdict in verdicts:
        fetch_chunks(source(house), store, verdict.manifest)
        store.assemble(verdict.manifest, box / verdict.manifest.name)
    assert (box / "chest" / "model.onnx").read_bytes() == noise(3000)


# --- owners ----------------------------------------------------------------------------------


def test_vendor_b_in_vendor_a_s_folder_is_invisible(house, box):
    manifest, _ = house.package(
        {"profile.toml": b"mine"}, kind="profile", name="board", version="9", vendor="acme"
    )
    with pytest.raises(InvalidMetadataError, match="may not sign"):
        roles.add_package(house.repository.role_data("vendor-bolt"), START, "vendor-bolt", manifest)

    # bolt does not ask our tools, and a hub that helps it serves what it signed
    def intrude(signed):
        signed.version += 1
        signed.targets[manifest.path] = roles.TargetFile.from_data(
            manifest.path, manifest.encode(), ["sha256"]
        )

    data = Metadata.from_bytes(house.repository.role_data("vendor-bolt"))
    intrude(data.signed)
    signed = roles.sign(roles.written(data.signed), house.key("bolt"))
    write_durably(metadata(house) / f"{data.signed.version}.vendor-bolt.json", signed)
    house.repository._write_target(manifest.path, manifest.encode())
    house.repository._state(START)
    seen = see(house, box, paths=[manifest.path])
    assert seen.code == ""
    assert seen.signed == {manifest.path: None}
    with pytest.raises(TargetNotSignedError, match="vendor-acme"):
        house.repository.assign("s0001", [manifest.path], START)


def test_an_assignment_alone_installs_nothing(house, box):
    """A stolen online key names a package nobody signed, another digest, or an older counter."""
    held = house.repository.assignment("s0001")
    item = held.items[0]
    forged = [
        item.model_copy(update={"path": "hw_profiles/acme/board-9.json"}),
        held.items[1].model_copy(update={"sha256": "0" * 64}),
    ]
    stolen = held.model_copy(update={"serial": 2, "items": tuple(forged)})
    house.repository.publish_assignments([stolen], START)
    seen = see(house, box)
    verdicts = decide(seen.assignment, seen.signed, NOTHING_RUNS)
    assert [one.code for one in verdicts] == ["target-not-signed", "target-differs"]


def test_targets_may_not_name_a_package_itself(house, box):
    def name(signed):
        signed.version += 1
        signed.targets["models/chest/9.json"] = roles.TargetFile.from_data("x", b"x", ["sha256"])

    old = metadata(house) / "3.targets.json"
    data = rewrite(old, name, house.key("di"), house.key("ed"))
    write_durably(metadata(house) / "4.targets.json", data)
    house.repository._state(START)
    assert see(house, box).code == "invalid-metadata"


def test_an_owner_may_not_hand_its_folder_on(house, box):
    read = Metadata.from_bytes(house.repository.role_data("models"))
    read.signed.version += 1
    read.signed.delegations = roles.Delegations({}, {})
    data = roles.written(read.signed)
    for name in ("trainer", "safety"):
        data = roles.sign(data, house.key(name))
    house.repository._publish("models", data)
    house.repository._state(START)
    assert see(house, box).code == "invalid-metadata"


# --- bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda b: b[:-1] + b"!", lambda b: b + b" "])
def test_a_tampered_or_overlong_manifest_is_refused(house, box, change):
    for path in house.repository.folder.glob("targets/models/chest/*"):
        path.write_bytes(change(path.read_bytes()))
    assert see(house, box).code == "metadata-mismatch"


@pytest.mark.parametrize(
    "change", [lambda b: b"x" + b[1:], lambda b: b + b"x", lambda b: b[:-1], lambda b: b""]
)
def test_a_tampered_overlong_or_cut_chunk_is_refused_after_three_tries(house, box, change):
    model = house.repository.manifest(*_path_and_digest(house, "models/"))
    digest = model.files[0].chunks[0]
    path = house.repository.folder / "chunks" / digest[:2] / digest
    path.write_bytes(change(path.read_bytes()))
    store, carrier = ChunkStore(box / "chunks"), Direct(house.gateway)
    with pytest.raises(ChunkMismatchError):
        fetch_chunks(HubSource(carrier), store, model)
    assert carrier.asked == [f"chunks/{digest[:2]}/{digest}"] * 3
    assert store.held() == {}
    with pytest.raises(ChunkMismatchError):
        fetch_chunks(FolderSource(house.repository.folder), store, model)


def test_a_chunk_that_came_wrong_once_is_asked_for_again(house, box):
    model = house.repository.manifest(*_path_and_digest(house, "models/"))

    class Flaky(HubSource):
        wrong = 1

        def chunks(self, wanted):
            for digest, data in super().chunks(wanted):
                yield digest, b"?" * len(data) if self.wrong else data
                self.wrong = 0

    store = ChunkStore(box / "chunks")
    assert fetch_chunks(Flaky(Direct(house.gateway)), store, model) == model.size
    assert store.missing(model) == []


def _path_and_digest(house, start):
    found = {path: one for path, one in house.repository.packages().items() if start in path}
    return next(iter(found.items()))


# --- time, versions --------------------------------------------------------------------------


def test_a_replayed_timestamp_is_refused(house, box):
    old = (metadata(house) / "timestamp.json").read_bytes()
    house.repository.assign("s0001", [], START)
    seen = see(house, box)
    (metadata(house) / "timestamp.json").write_bytes(old)
    assert see(house, box, seen.memory).code == "metadata-rollback"


def test_a_replayed_timestamp_is_refused_by_the_floor_alone(house, box):
    """The client's cache is lost; what the database remembers of versions is not."""
    old = (metadata(house) / "timestamp.json").read_bytes()
    house.repository.assign("s0001", [], START)
    seen = see(house, box)
    (metadata(house) / "timestamp.json").write_bytes(old)
    lost = replace(seen.memory, metadata={})
    again = see(house, box, lost)
    assert again.code == "metadata-rollback"
    assert again.memory == lost  # nothing of the old state is kept
    assert see(house, box, Memory()).code == ""  # what the floor is for


def test_mix_and_match_is_refused(house, box):
    """A snapshot that names an older version of a role, signed by a stolen online key."""
    seen = see(house, box)
    house.publish({"model.onnx": b"two"}, version="2", release_counter=2)
    newer = see(house, box, seen.memory)
    versions = {"targets": 3, "assign": 2, "app": 1, "policies": 1, "models": 2}
    versions |= {"vendor-acme": 2, "vendor-bolt": 1}
    number = house.repository._version("snapshot") + 1
    snapshot = roles.make_snapshot(number, START, versions, online(house, "snapshot"))
    house.repository._publish("snapshot", snapshot)
    house.repository._timestamp(START, snapshot)
    assert see(house, box, newer.memory).code == "metadata-rollback"
    assert see(house, box, replace(newer.memory, metadata={})).code == "metadata-rollback"


def test_a_snapshot_other_than_the_timestamp_names_is_refused(house, box):
    number = house.repository._version("snapshot")
    path = metadata(house) / f"{number}.snapshot.json"
    rewrite(path, lambda signed: signed.meta.clear(), online(house, "snapshot"))
    assert see(house, box).code == "metadata-mismatch"


def test_an_older_assignment_is_refused_even_under_newer_metadata(house, box):
    seen = see(house, box)
    memory = replace(seen.memory, serial=7)
    assert see(house, box, memory).code == "stale-assignment"


def test_another_site_s_assignment_is_refused(house, box):
    """The hub itself would have to serve it: the gateway does not."""
    other = house.repository.assignment("s0001").model_copy(update={"serial": 9})
    path = "assign/s0002.json"
    read = house.repository.role_data("assign")
    data = roles.change_role(read, START, "assign", add={path: other.encode()})
    house.repository._write_target(path, other.encode())
    house.repository._publish("assign", roles.sign(data, online(house, "assign")))
    house.repository._state(START)
    assert see(house, box, site="s0002", source=source(house, "box-2")).code == "foreign-assignment"


def test_expired_metadata_is_refused(house, box):
    assert see(house, box, now=START + 3 * DAY).code == "metadata-expired"


def test_an_expired_repository_with_the_clock_set_back_is_refused(house, box):
    seen = see(house, box, now=START + DAY)
    back = see(house, box, seen.memory, now=START - 400 * DAY)
    assert back.code == "time-floor"
    assert see(house, box, seen.memory, now=START + 3 * DAY).code == "metadata-expired"
    assert see(house, box, Memory(), now=START - 400 * DAY).code == ""  # what the floor is for


@pytest.mark.parametrize("days", [-20_000, 50 * 365])
def test_a_clock_far_off_refuses_and_breaks_nothing(house, box, days):
    seen = see(house, box)
    off = see(house, box, seen.memory, now=START + days * DAY)
    assert off.code in ("time-floor", "metadata-expired")
    assert off.memory.time_floor == START  # a wrong clock does not raise the floor
    assert see(house, box, off.memory, now=START + 60).code == ""


# --- keys ------------------------------------------------------------------------------------


def test_one_of_two_signatures_is_refused(house, box):
    house.repository.renew("models", START)
    house.commit("trainer")
    draft = next(one for one in house.repository.drafts() if one.role == "models")
    assert draft.standing.missing == 1
    # a hub that publishes it anyway
    house.repository._publish("models", draft.path.read_bytes())
    house.repository._state(START)
    assert see(house, box).code == "metadata-untrusted"


def test_the_same_key_twice_counts_once(house, box):
    house.repository.renew("models", START)
    draft = next(one for one in house.repository.drafts() if one.role == "models")
    data = roles.sign(
        roles.sign(draft.path.read_bytes(), house.key("trainer")), house.key("trainer")
    )
    read = json.loads(data)
    read["signatures"] += [read["signatures"][0] | {"keyid": "0" * 64}]
    house.repository._publish("models", json.dumps(read).encode())
    house.repository._state(START)
    assert see(house, box).code == "metadata-untrusted"


def test_a_root_signed_by_new_keys_only_is_refused(house, box):
    house.repository.rotate("root", house.holders(["x", "y", "z"], 2), START)
    house.commit("x", "y", "z")
    draft = next(one for one in house.repository.drafts() if one.role == "root")
    assert draft.standing.missing == 2
    house.repository._publish("root", draft.path.read_bytes())
    assert see(house, box).code == "metadata-untrusted"


def test_a_root_signed_by_old_and_new_keys_is_followed_and_remembered(house, box):
    built_in = house.root
    seen = see(house, box)
    house.repository.rotate("root", house.holders(["x", "y", "z"], 2), START)
    house.commit("ada", "bo", "x", "y")
    seen = see(house, box, seen.memory, root=built_in)
    assert seen.code == ""
    assert seen.memory.floors["root"].version == 2
    # a hub that hides the new root again is no use to whoever holds the old keys
    (metadata(house) / "2.root.json").unlink()
    again = see(house, box, seen.memory, root=built_in)
    assert again.code == ""
    assert again.memory.floors["root"].version == 2
    assert see(house, box, replace(seen.memory, metadata={}), root=built_in).code == (
        "metadata-rollback"
    )


def test_a_revoked_vendor_installs_nothing_and_others_go_on(house, box):
    acme, bolt = "hw_profiles/acme/board-1.json", "models/chest/1.0.0.json"
    seen = see(house, box, paths=[acme, bolt])
    assert all(seen.signed.values())
    house.repository.revoke_vendor("acme", START)
    house.commit()
    after = see(house, box, seen.memory, paths=[acme, bolt])
    assert after.code == ""
    assert after.signed[acme] is None
    assert after.signed[bolt] is not None
    verdicts = decide(after.assignment, after.signed, NOTHING_RUNS)
    assert [one.code for one in verdicts] == ["target-not-signed", ""]


def test_a_vendor_s_replaced_key_signs_nothing_more(house, box):
    seen = see(house, box)
    house.repository.rotate("vendor-acme", house.holders(["acme-new"]), START)
    house.commit("di", "ed", "acme")
    assert see(house, box, seen.memory, paths=["hw_profiles/acme/board-1.json"]).code == (
        "metadata-untrusted"
    )
    house.commit("acme-new")
    again = see(house, box, seen.memory)
    assert again.code == ""
    assert again.signed["hw_profiles/acme/board-1.json"] is not None


def test_new_online_keys_restart_the_versions_of_their_roles_only(house, box):
    """Recovery after somebody signed a timestamp with a version of 2^40 under a stolen key."""
    seen = see(house, box)
    rewrite(
        metadata(house) / "timestamp.json",
        lambda signed: setattr(signed, "version", 2**40),
        online(house, "timestamp"),
    )
    far = see(house, box, seen.memory)
    assert far.memory.floors["timestamp"].version == 2**40
    house.repository.rotate_online("timestamp", START)
    (metadata(house) / "timestamp.json").unlink()
    house.commit("ada", "cy")
    again = see(house, box, far.memory)
    assert again.code == ""
    assert again.memory.floors["timestamp"].version == 1
    assert again.memory.floors["targets"] == far.memory.floors["targets"]


# --- the gateway and sticks ------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "online/timestamp.pem",
        "drafts/1.root.json",
        "metadata/../online/timestamp.pem",
        "metadata//timestamp.json",
        "/etc/passwd",
        "metadata/.hidden",
        "metadata",
        "chunks/link",
        "targets/linked/1.json",
    ],
)
def test_the_gateway_shows_three_folders_of_plain_files(house, path):
    root = house.repository.folder
    (root / "chunks" / "link").symlink_to("/etc/hostname")
    (root / "targets" / "linked").symlink_to(root / "online")
    (root / "online" / "1.json").write_text("{}")
    with pytest.raises(ForbiddenPathError):
        house.gateway.read("box-1", path, 0)


def test_a_box_sees_its_own_assignment_only(house):
    file = next(house.repository.folder.glob("targets/assign/*.json"))
    path = file.relative_to(house.repository.folder).as_posix()
    assert house.gateway.read("box-1", path, 0)[1] == file.read_bytes()
    with pytest.raises(ForbiddenPathError, match="own assignment"):
        house.gateway.read("box-2", path, 0)


def test_a_site_s_id_does_not_show_the_box_s_name():
    assert site_of("ab" * 32) == site_of("ab" * 32) != site_of("cd" * 32)
    assert len(site_of("ab" * 32)) == 25


def _stick(house, folder, days=7):
    def copy():
        for name in ("metadata", "targets", "chunks"):
            shutil.copytree(house.repository.folder / name, folder / name)

    house.repository.stick(house.now, days, copy)
    return FolderSource(folder)


def test_a_stick_goes_the_same_way_and_expires(house, box, tmp_path):
    stick = _stick(house, tmp_path / "stick")
    later = START + 6 * DAY
    seen = see(house, box, source=stick, now=later)
    assert seen.code == ""
    model = decide(seen.assignment, seen.signed, NOTHING_RUNS)[1].manifest
    assert fetch_chunks(stick, ChunkStore(box / "chunks"), model) == model.size
    assert see(house, box, source=stick, now=START + 8 * DAY).code == "metadata-expired"
    online = see(house, box, seen.memory, now=later)
    assert online.code == "metadata-expired"  # nobody signed at the hub for six days
    house.repository.keep_fresh(later)
    online = see(house, box, seen.memory, now=later)
    assert online.code == ""
    assert see(house, box, online.memory, source=stick, now=later).code == "metadata-rollback"


def test_links_and_devices_on_a_stick_are_refused(house, box, tmp_path):
    stick = _stick(house, tmp_path / "stick")
    target = next((tmp_path / "stick").glob("targets/models/chest/*"))
    moved = tmp_path / "elsewhere.json"
    target.rename(moved)
    target.symlink_to(moved)
    assert see(house, box, source=stick).code == "invalid-metadata"
    with pytest.raises(ForbiddenPathError):
        stick.read(target.relative_to(tmp_path / "stick").as_posix())
    for path in ("../x", "a/../../x", "./x"):
        with pytest.raises(ForbiddenPathError):
            stick.read(path)


def test_a_stick_s_endless_file_is_cut_by_its_limit(house, box, tmp_path):
    stick = _stick(house, tmp_path / "stick")
    with (tmp_path / "stick" / "metadata" / "timestamp.json").open("ab") as file:
        file.truncate(1 << 30)
    assert see(house, box, source=stick).code == "metadata-mismatch"
    model = house.repository.manifest(*_path_and_digest(house, "models/"))
    digest = model.files[0].chunks[0]
    with (tmp_path / "stick" / "chunks" / digest[:2] / digest).open("ab") as file:
        file.truncate(1 << 30)
    read = dict(stick.chunks({digest: model.files[0].size}))
    assert len(read[digest]) == CHUNK + 1


# --- the hub's own side ----------------------------------------------------------------------


def test_a_hub_that_is_down_stops_updates_with_its_own_code(house, box):
    class Down:
        def read(self, path):
            from bedside_core.errors import HubUnavailableError

            raise HubUnavailableError("no answer")

    assert see(house, box, source=Down()).code == "hub-unavailable"


def test_the_first_keys_must_be_enough(tmp_path):
    house = House(tmp_path)
    people = {role: house.holders(["a"]) for role in ("root", "targets", "models")}
    with pytest.raises(InvalidInputError, match="root takes 2 of at least 3"):
        house.repository.begin(people, START)


def test_an_owner_s_package_is_taken_only_as_it_signed_it(house):
    profile = {"kind": "profile", "name": "board", "version": "2", "vendor": "acme"}
    manifest, store = house.package({"profile.toml": b"two"}, release_counter=2, **profile)
    other, its = house.package({"profile.toml": b"not signed"}, release_counter=2, **profile)
    base = house.repository.role_data("vendor-acme")
    data = roles.sign(roles.add_package(base, START, "vendor-acme", manifest), house.key("acme"))
    with pytest.raises(TargetNotSignedError):
        house.repository.add(other, its, data, START)
    old = house.repository.manifest(*_path_and_digest(house, "acme"))
    with pytest.raises(InvalidMetadataError, match="sign the next"):
        house.repository.add(old, store, base, START)
    draft = house.repository.add(manifest, store, data, START)
    assert draft.standing.missing == 0
    house.repository.commit(START)
    assert manifest.path in house.repository.packages()


def test_signing_something_else_than_the_draft_is_refused(house):
    draft = house.repository.renew("app", START)
    other = roles.make_role(draft.version, START + 1000, "app")
    with pytest.raises(BedsideError):
        house.repository.signed(roles.sign(other, house.key("release")), "app")
    good = roles.sign(draft.path.read_bytes(), house.key("release"))
    assert house.repository.signed(good, "app").standing.missing == 0


def test_role_files_that_are_none_are_refused():
    for data in (b"", b"{}", b"[]", roles.written(Targets())[:-3]):
        with pytest.raises(InvalidMetadataError):
            roles.parsed(data)
