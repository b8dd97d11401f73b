"""What a round leaves on the boxes' and the hub's disks and in the log: nothing it must not."""

import json
import logging
import os

import pytest

from bedside_edge.logs import SafeFormatter
from support.nights import World

SEED = 32  # bytes, of mask seeds, round keys and identities


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def watched(house, drawn, vectors):
    """Keep what the box draws and computes, which its disk must not."""
    vector = house.sync._source.vector

    def random(count):
        drawn.append(os.urandom(count))
        return drawn[-1]

    def kept(manifest):
        vectors.append(vector(manifest))
        return vectors[-1]

    house.sync._random, house.sync._source.vector = random, kept


def spelt(secret):
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret).encode()]


def leaks(folder, log, secrets):
    """Return where any of the secrets stands, in any of its spellings."""
    places = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(places) > 20
    places["log"] = log.encode()
    found = [way for secret in secrets for way in spelt(secret)]
    return [place for place, data in places.items() if any(one in data for one in found)]


def test_no_seed_key_or_vector_stays_on_a_disk_or_in_the_log(world, caplog):
    caplog.set_level(logging.DEBUG)
    drawn, vectors = [], []
    for house in world.houses.values():
        watched(house, drawn, vectors)
    manifest = world.open_round("r-1")
    world.visit()
    seeds = [one for one in drawn if len(one) == SEED]
    noisy = [v.astype(f"<i{size}").tobytes()[:64] for v in vectors for size in (4, 8)]
    identities = [key.private_bytes_raw() for key in world.among.keys.values()]
    assert len(vectors) == len(world.houses)
    assert len(seeds) == 4 + 4 * len(manifest.subsets)  # round keys and mask seeds
    sent = bytes.fromhex(world.store.report_of("r-1", "box-0").body.vector)
    assert leaks(world.folder, "", [sent])  # what is there is found

    def log():
        safe = [SafeFormatter().format(record) for record in caplog.records]
        return "\n".join(safe + [record.getMessage() for record in caplog.records])

    assert leaks(world.folder, log(), seeds + noisy + identities) == []
    world.close_round()
    assert {house.box_state("r-1") for house in world.houses.values()} == {"included"}
    assert leaks(world.folder, log(), seeds + noisy + identities) == []


def test_no_patient_is_named_in_what_is_kept_of_a_round_or_sent(world, caplog):
    caplog.set_level(logging.DEBUG)
    world.open_round("r-1")
    world.visit()
    world.close_round()
    for house in world.houses.values():
        names = [*house.counting.subjects]
        rows = house.state.database.read(
            lambda c: c.execute("SELECT subject_id, lookup FROM subjects").fetchall()
        )
        names += [lookup for _, lookup in rows]
        assert len(names) == 10
        tables = house.state.database.read(
            lambda c: c.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
                " AND (name LIKE 'sync%' OR name LIKE 'evidence%' OR name = 'events')"
            ).fetchall()
        )
        assert len(tables) > 8
        text = json.dumps(
            [
                house.state.database.read(
                    lambda c, t=table: c.execute(f"SELECT * FROM {t}").fetchall()  # noqa: S608
                )
                for (table,) in tables
            ],
            default=lambda data: data.decode("latin-1"),
        )
        hub = [path.read_bytes() for path in (world.folder / "hub").rglob("*") if path.is_file()]
        for name in names:
            assert name not in text
            assert name not in caplog.text
            assert not any(name.encode() in data for data in hub)
