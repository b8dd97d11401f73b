"""Manifests, pieces, assignments, bundles: what is refused before anything is signed or written."""

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bedside_core.errors import (
    BedsideError,
    ChunkMismatchError,
    DiskFullError,
    ForbiddenPathError,
    InvalidEnvelopeError,
    InvalidKeyError,
    InvalidTargetError,
    ProofMismatchError,
    StoreUnavailableError,
    UntrustedSignatureError,
    UpdateTooLargeError,
    WeakPasswordError,
)
from bedside_sync.distribution.assignment import (
    Assignment,
    Item,
    Running,
    Signed,
    Window,
    check_package,
    decide,
    owner_of,
    read_assignment,
)
from bedside_sync.distribution.bundle import BUNDLE_NAME, check_bundle, sign_bundle
from bedside_sync.distribution.chunks import ChunkStore, check_folder, package_files
from bedside_sync.distribution.disk import read_plain
from bedside_sync.distribution.manifest import (
    CHUNK,
    PackagedFile,
    Requirement,
    TargetManifest,
    read_manifest,
    safe_path,
)
from bedside_sync.distribution.packages import build_package, check_package_content, read_package
from bedside_sync.distribution.signers import make_private, make_signer, open_signer, public_of
from bedside_sync.distribution.sources import FolderSource
from support.package_houses import noise


def file(path, data=b"content"):
    digest = sha256(data).hexdigest()
    return PackagedFile(path=path, size=len(data), sha256=digest, chunks=(digest,))


def manifest(*paths, **facts):
    given_ = {"kind": "model", "name": "chest", "version": "1", "release_counter": 5}
    files = tuple(sorted(map(file, paths or ("a",)), key=lambda one: one.path))
    return TargetManifest(files=files, **(given_ | facts))


# --- manifests -------------------------------------------------------------------------------

BAD_PATHS = [
    *("", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", ".hidden", "a/.git/x", "a\\b"),
    *(
        "a:b",
        "con",
        "a/NUL.txt",
        "com1",
        "a.",
        "a b",
        "a\nb",
        "ä",
        "~x",
        "a/" * 16 + "b",
        "x" * 129,
    ),
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_is_not_plain_is_refused(path):
    with pytest.raises(ValueError, match="path"):
        safe_path(path)


@given(st.text(max_size=60))
def test_no_accepted_path_leaves_its_folder(path):
    try:
        safe_path(path)
    except ValueError:
        return
    assert os.path.normpath(os.path.join("/slot", path)).startswith("/slot/")  # noqa: PTH118
    assert "\\" not in path
    assert path.isascii()


@pytest.mark.parametrize(
    "paths", [("a", "A"), ("a", "a/b"), ("A", "a/b"), ("x/a", "X/b"), ("d/e/f", "D/e/g")]
)
def test_paths_that_are_one_on_some_disk_are_refused(paths):
    with pytest.raises(ValidationError, match="name"):
        manifest(*paths)


@pytest.mark.parametrize(
    "facts",
    [
        {"vendor": "acme"},
        {"kind": "profile"},
        {"min_counter": 6},
        {"release_counter": 0},
        {"sbom": "0" * 64},
        {"card": "0" * 64},
        {"name": "../x"},
        {"version": "1/2"},
        {"unknown": 1},
    ],
)
def test_a_manifest_that_contradicts_itself_cannot_exist(facts):
    with pytest.raises(ValidationError):
        manifest(**facts)


def test_files_are_as_their_chunks_say():
    whole = file("a").model_dump()
    for change in ({"size": 0}, {"size": CHUNK + 1}, {"sha256": "0" * 64}, {"chunks": ()}):
        with pytest.raises(ValidationError):
            PackagedFile(**(whole | change))
    empty = PackagedFile(path="a", size=0, sha256=sha256(b"").hexdigest(), chunks=())
    assert empty.chunks == ()


def test_a_manifest_has_one_spelling_and_one_path():
    made = manifest("a", "b/c")
    assert read_manifest(made.encode(), made.path) == made
    assert made.path == "models/chest/1.json"
    assert made.slot == "model/chest"
    with pytest.raises(InvalidTargetError, match="another package"):
        read_manifest(made.encode(), "models/chest/2.json")
    spaced = json.dumps(json.loads(made.encode())).encode()
    for data in (spaced, b"", b"{}", made.encode()[:-1], b"x" * (1 << 21)):
        with pytest.raises(InvalidTargetError):
            read_manifest(data)


@pytest.mark.parametrize("kind", ["app", "policy", "profile", "model"])
def test_every_kind_lies_where_its_owner_signs(kind):
    made = manifest(kind=kind, vendor="acme" if kind == "profile" else "")
    owners = {"app": "app", "policy": "policies", "profile": "vendor-acme", "model": "models"}
    assert owner_of(made.path) == owners[kind]


@pytest.mark.parametrize(
    "path", ["", "x", "models/a", "models/a/b/c", "app/a/b", "hw_profiles/a", "hw_profiles/a/b/c"]
)
def test_a_path_nobody_owns_is_refused(path):
    with pytest.raises(InvalidTargetError):
        owner_of(path)


# --- assignments -----------------------------------------------------------------------------


def test_windows_go_over_midnight():
    night = Window(start=1380, end=300)
    assert [night.contains(minute) for minute in (0, 299, 300, 1379, 1380)] == [
        *(True, True, False, False, True)
    ]
    assert Window().contains(720)
    day = Window(start=480, end=1020)
    assert not day.contains(1020)
    assert day.contains(480)


def test_an_assignment_names_each_thing_once_and_by_its_kind():
    item = Item(kind="model", path="models/a/1.json", sha256="0" * 64, release_counter=1)
    with pytest.raises(ValidationError):
        Assignment(site="s1", serial=1, items=(item, item))
    with pytest.raises(ValidationError):
        Item(kind="app", path="models/a/1.json", sha256="0" * 64, release_counter=1)
    with pytest.raises(InvalidTargetError):
        read_assignment(b"{}")


def test_counters_requirements_hardware_and_room_are_held():
    nothing = Running(counters={}, floors={})
    check_package(manifest(), nothing)
    cases = {
        "rollback-refused": (manifest(), Running(counters={}, floors={"model/chest": 6})),
        "profile-mismatch": (
            manifest(hardware=("n100",)),
            Running(counters={}, floors={}, profile="l4"),
        ),
        "update-too-large": (manifest(), Running(counters={}, floors={}, room=3)),
        "requires-unmet": (
            manifest(requires=(Requirement(kind="app", least=3),)),
            Running(counters={"app": 2}, floors={}),
        ),
    }
    for code, (made, running) in cases.items():
        with pytest.raises(BedsideError) as refused:
            check_package(made, running)
        assert refused.value.code == code
    served = Running(counters={"model/chest": 6}, floors={})
    with pytest.raises(BedsideError) as refused:
        check_package(manifest(), served)
    assert refused.value.code == "rollback-refused"
    ranged = manifest(requires=(Requirement(kind="app", least=3, most=4),))
    check_package(ranged, Running(counters={"app": 4}, floors={}))
    with pytest.raises(BedsideError, match="3 to 4"):
        check_package(ranged, Running(counters={"app": 5}, floors={}))


def test_what_comes_together_may_require_each_other():
    app = manifest(kind="app", name="bedside", release_counter=3)
    model = manifest(requires=(Requirement(kind="app", least=3),))
    items = tuple(
        Item(kind=m.kind, path=m.path, sha256=m.digest, release_counter=m.release_counter)
        for m in (model, app)
    )
    assignment = Assignment(site="s1", serial=1, items=items)
    signed = {m.path: Signed(sha256=m.digest, data=m.encode()) for m in (model, app)}
    before = Running(counters={"app": 2}, floors={})
    assert all(one.allowed for one in decide(assignment, signed, before))
    alone = Assignment(site="s1", serial=2, items=items[:1])
    assert [one.code for one in decide(alone, signed, before)] == ["requires-unmet"]
    lower = items[0].model_copy(update={"release_counter": 4})
    wrong = Assignment(site="s1", serial=3, items=(lower,))
    assert [one.code for one in decide(wrong, signed, before)] == ["target-differs"]


# --- the chunk store -------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    return ChunkStore(tmp_path / "chunks")


@pytest.fixture
def content(tmp_path):
    folder = tmp_path / "content"
    (folder / "sub").mkdir(parents=True)
    (folder / "big.bin").write_bytes(noise(CHUNK + 5))
    (folder / "sub" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "sub" / "run.sh").chmod(0o755)
    (folder / "empty").touch()
    return folder


def packed(content, store):
    given_ = {"kind": "app", "name": "bedside", "version": "1", "release_counter": 1}
    return TargetManifest(files=package_files(content, store), **given_)


def test_what_is_assembled_is_what_was_packed(content, store, tmp_path):
    made = packed(content, store)
    told = []
    store.assemble(made, tmp_path / "slot", lambda done, of: told.append((done, of)))
    check_folder(made, tmp_path / "slot")
    assert told[-1] == (made.size, made.size)
    for one in made.files:
        assert (tmp_path / "slot" / one.path).read_bytes() == (content / one.path).read_bytes()
    assert (tmp_path / "slot" / "sub" / "run.sh").stat().st_mode & 0o777 == 0o500
    assert (tmp_path / "slot" / "big.bin").stat().st_mode & 0o777 == 0o400
    with pytest.raises(StoreUnavailableError, match="empty folder"):
        store.assemble(made, tmp_path / "slot")


def test_a_folder_with_more_less_or_other_than_signed_is_refused(content, store, tmp_path):
    made = packed(content, store)
    slot = tmp_path / "slot"
    store.assemble(made, slot)
    (slot / "extra").touch()
    with pytest.raises(ForbiddenPathError):
        check_folder(made, slot)
    (slot / "extra").unlink()
    (slot / "big.bin").chmod(0o600)
    (slot / "big.bin").write_bytes(noise(CHUNK + 5, 2))
    with pytest.raises(ChunkMismatchError):
        check_folder(made, slot)
    (slot / "big.bin").unlink()
    (slot / "big.bin").symlink_to(content / "big.bin")
    with pytest.raises(ForbiddenPathError):
        check_folder(made, slot)


def test_a_chunk_that_changed_on_the_disk_is_dropped_and_fetched_again(content, store, tmp_path):
    made = packed(content, store)
    digest = made.file("big.bin").chunks[0]
    place = tmp_path / "chunks" / digest[:2] / digest
    place.write_bytes(b"rot")
    assert store.has(digest)
    with pytest.raises(ChunkMismatchError):
        store.assemble(made, tmp_path / "slot")
    assert store.missing(made) == [digest]


def test_a_stick_that_is_pulled_out_or_a_bad_block_is_an_error_of_the_disk():
    """Linux has one file at least that opens as a plain one and cannot be read."""
    for read in (
        lambda: list(FolderSource(Path("/proc/self")).read("mem")),
        lambda: read_plain(Path("/proc/self/mem"), 100),
    ):
        with pytest.raises(StoreUnavailableError, match="cannot read"):
            read()


def test_links_and_pipes_are_no_part_of_a_package(content, store):
    (content / "link").symlink_to("/etc/passwd")
    with pytest.raises(ForbiddenPathError):
        package_files(content, store)
    (content / "link").unlink()
    os.mkfifo(content / "pipe")
    with pytest.raises(ForbiddenPathError):
        package_files(content, store)


def test_room_is_asked_before_the_first_byte(content, tmp_path):
    made = packed(content, ChunkStore(tmp_path / "all"))
    with pytest.raises(UpdateTooLargeError):
        ChunkStore(tmp_path / "small", quota=CHUNK).must_fit(made)
    crowded = ChunkStore(tmp_path / "crowded", quota=made.size + 10)
    crowded.put(sha256(b"x" * 20).hexdigest(), b"x" * 20)
    with pytest.raises(DiskFullError):
        crowded.must_fit(made)
    assert crowded.prune([]) == 20
    crowded.must_fit(made)


def test_a_scan_of_a_slot_saves_what_it_holds(content, store, tmp_path):
    made = packed(content, None)
    assert store.scan(content) == 3
    assert store.missing(made) == []
    assert store.scan(content) == 0
    (tmp_path / "chunks" / ".part-x").touch()
    assert store.sweep() == 1


# --- keys and bundles ------------------------------------------------------------------------


def test_a_key_opens_with_its_passphrase_and_name_only():
    with pytest.raises(WeakPasswordError):
        make_signer("ada", "short")
    made = make_signer("ada", "correct horse battery")
    private = open_signer(made, "correct horse battery")
    assert public_of("ada", private) == made.half
    for other, words in (
        (made, "wrong horse battery"),
        (made.model_copy(update={"name": "eve"}), "correct horse battery"),
    ):
        with pytest.raises(InvalidKeyError):
            open_signer(other, words)


def test_a_bundle_speaks_for_exactly_its_files_and_key():
    private, other = make_private(), make_private()
    files = {"a": "1" * 64, "b/c": "2" * 64}
    public = public_of("x", private).public
    bundle = sign_bundle("chest", files, private)
    assert check_bundle(bundle, files, public) == "chest"
    with pytest.raises(UntrustedSignatureError):
        check_bundle(bundle, files, public_of("x", other).public)
    for changed in ({"a": "1" * 64}, files | {"d": "3" * 64}, files | {"a": "4" * 64}):
        with pytest.raises(ProofMismatchError):
            check_bundle(bundle, changed, public)
    read = json.loads(bundle)
    for breaks in (
        lambda b: b.update(mediaType="x"),
        lambda b: b["dsseEnvelope"].update(payloadType="x"),
        lambda b: b["dsseEnvelope"].update(payload="!"),
        lambda b: b["dsseEnvelope"].update(signatures=[]),
        lambda b: b.pop("dsseEnvelope"),
    ):
        broken = json.loads(json.dumps(read))
        breaks(broken)
        with pytest.raises(InvalidEnvelopeError):
            check_bundle(json.dumps(broken).encode(), files, public)
    for data in (b"", b"[]", b"\xff", b"x" * (5 << 20)):
        with pytest.raises(InvalidEnvelopeError):
            check_bundle(data, files, public)


def test_a_bundle_is_what_the_standard_describes():
    """Checked by hand from the texts of DSSE, in-toto and the sigstore bundle."""
    import base64

    private = make_private()
    files = {"b": "2" * 64, "a": "1" * 64}
    bundle = json.loads(sign_bundle("chest", files, private))
    envelope = bundle["dsseEnvelope"]
    body = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    private.public_key().verify(signature, message, ec.ECDSA(SHA256()))
    pem = public_of("x", private).public
    assert bundle["verificationMaterial"]["publicKey"]["hint"] == sha256(pem.encode()).hexdigest()
    statement = json.loads(body)
    whole = sha256(bytes.fromhex("1" * 64 + "2" * 64)).hexdigest()
    assert statement["subject"] == [{"name": "chest", "digest": {"sha256": whole}}]
    assert [one["name"] for one in statement["predicate"]["resources"]] == ["a", "b"]


def test_a_package_folder_carries_its_bundle(content, tmp_path):
    private = make_private()
    facts = {"kind": "model", "name": "chest", "version": "1", "release_counter": 1}
    made = build_package(content, tmp_path / "package", facts, private)
    assert BUNDLE_NAME in {one.path for one in made.manifest.files}
    again = read_package(tmp_path / "package")
    assert again.manifest == made.manifest
    assert check_package_content(again, public_of("x", private).public)
    digest = made.manifest.file("big.bin").chunks[1]
    (tmp_path / "package" / "chunks" / digest[:2] / digest).write_bytes(b"other")
    with pytest.raises(ChunkMismatchError):
        check_package_content(again)
    with pytest.raises(InvalidTargetError, match="vendor"):
        build_package(content, tmp_path / "wrong", facts | {"vendor": "acme"})


def test_a_bundle_written_by_the_reference_tool_is_accepted():
    folder = Path(__file__).parent / "vectors" / "model-signing-1.1.1"
    files = {one.path: one.sha256 for one in package_files(folder / "chest")}
    public = (folder / "public.pem").read_text()
    assert check_bundle((folder / "theirs.sig").read_bytes(), files, public) == "chest"
