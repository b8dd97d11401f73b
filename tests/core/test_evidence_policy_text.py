"""Witness policies: which lines are one, and when a quorum is met."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidWitnessPolicyError
from bedside_core.evidence.note import SignatureType
from bedside_core.evidence.policy_text import parse_policy_text
from support.evidence_log import HUB_ED, HUB_ML, LOG_ED, LOG_ML, ORIGIN, key_pair

PEERS = [
    key_pair(f"peer/{number}", SignatureType.ED25519_COSIGNATURE, 130 + number).key
    for number in range(3)
]
LOG = f"log {LOG_ED.key.text}\nlog {LOG_ML.key.text} https://box.example/log\n"
HUB = f"witness hub-ed {HUB_ED.key.text}\nwitness hub-ml {HUB_ML.key.text} https://hub.example\n"
P = "".join(f"witness p{number} {key.text}\n" for number, key in enumerate(PEERS))
WHOLE = (
    f"{LOG}# the hub, both keys\n\n{HUB}group hub all hub-ed hub-ml\n"
    f"{P}\t group  peers\t2 p0 p1 p2 \ngroup q all hub peers\nquorum q\n"
)


def read(text: str | bytes):
    return parse_policy_text(text if isinstance(text, bytes) else text.encode())


def test_any_hub_and_k_peers():
    policy = read(WHOLE)
    assert policy.keys_of(ORIGIN) == (LOG_ED.key, LOG_ML.key)
    assert policy.keys_of("another") == ()
    hub, everybody = {HUB_ED.key, HUB_ML.key}, {HUB_ED.key, HUB_ML.key, *PEERS}
    for count in range(len(everybody) + 1):
        for signed in combinations(everybody, count):
            enough = hub <= set(signed) and len(set(signed) & set(PEERS)) >= 2
            assert policy.met(signed) is enough
    assert not policy.met([LOG_ED.key, LOG_ML.key])


def test_nobody_is_enough_for_none_only():
    assert read("quorum none\n").met([])
    assert read("quorum none").met([])  # the last newline may be missing
    assert not read(HUB + "group g any hub-ed hub-ml\nquorum g\n").met([])
    assert read(HUB + "group g any hub-ed hub-ml\nquorum g\n").met([HUB_ML.key])
    assert read(HUB + "quorum hub-ml\n").met([HUB_ML.key])


def test_a_key_counts_by_name_and_id_not_by_its_bytes():
    renamed = key_pair("peer/other", SignatureType.ED25519_COSIGNATURE, 130).key
    assert renamed.public == PEERS[0].public
    assert not read(P + "quorum p0\n").met([renamed])


def test_names_are_bytes():
    kelvin = b"\xe2\x84\xaa"
    text = b"witness " + kelvin + b" " + HUB_ED.key.text.encode() + b"\nquorum "
    assert read(text + kelvin).met([HUB_ED.key])
    with pytest.raises(InvalidWitnessPolicyError):
        read(text + b"K")
    assert read(b"# \xff\xfe\nquorum none\n").quorum == b"none"


def test_32_of_each_are_read():
    many = [key_pair(f"w{n}", SignatureType.ED25519_COSIGNATURE, n).key for n in range(32)]
    logs = [key_pair(f"l{n}", SignatureType.ED25519, n).key for n in range(32)]
    lines = [f"log {key.text}" for key in logs]
    lines += [f"witness w{n} {key.text}" for n, key in enumerate(many)]
    lines += [f"group g{n} any w{n}" for n in range(32)]
    lines += ["group all all " + " ".join(f"g{n}" for n in range(32)), "quorum all"]
    policy = read("\n".join(lines))
    assert policy.met(many)
    assert not policy.met(many[1:])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none\nquorum none\n",
        HUB,
        "quorum hub-ed\n" + HUB,  # before it is defined
        HUB + "group g any p9\nquorum g\n",
        HUB + "group g any g\nquorum g\n",
        HUB + "group g any none\nquorum g\n",
        HUB + "group g 0 hub-ed\nquorum g\n",
        HUB + "group g 2 hub-ed\nquorum g\n",
        HUB + "group g 01 hub-ed\nquorum g\n",
        HUB + "group g some hub-ed\nquorum g\n",
        HUB + "group g any\nquorum g\n",
        HUB + "group g any hub-ed hub-ed\nquorum g\n",
        HUB + "group g any hub-ed\ngroup h any hub-ed\nquorum h\n",
        HUB + "group hub-ed any hub-ml\nquorum hub-ed\n",
        HUB + "group none any hub-ml\nquorum none\n",
        f"witness hub-ed {PEERS[0].text}\n" + HUB + "quorum hub-ed\n",
        HUB + f"witness again {HUB_ED.key.text}\nquorum again\n",
        f"log {LOG_ED.key.text}\nlog {LOG_ED.key.text}\nquorum none\n",
        f"log {HUB_ED.key.text}\nquorum none\n",
        f"witness w {LOG_ED.key.text}\nquorum w\n",
        "log nothing\nquorum none\n",
        "log\nquorum none\n",
        "witness w\nquorum none\n",
        "quorum\n",
        "quorum none extra\n",
        "quorums none\n",
        "quorum none\r\n",
        "quorum none\x00\n",
        b"log \xff+00000000+AAAA\nquorum none\n",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(InvalidWitnessPolicyError):
        read(text)


def test_the_same_key_under_another_name_is_the_same_key():
    renamed = key_pair("peer/other", SignatureType.ED25519_COSIGNATURE, 130).key
    with pytest.raises(InvalidWitnessPolicyError, match="line 4"):
        read(P + f"witness again {renamed.text}\nquorum p0\n")


def test_a_policy_is_bounded():
    with pytest.raises(InvalidWitnessPolicyError):
        read(b"#" * ((1 << 20) + 1))
    groups = "".join(f"group g{n} any {f'g{n - 1}' if n else 'hub-ed'}\n" for n in range(1025))
    with pytest.raises(InvalidWitnessPolicyError, match="at most 1024"):
        read(HUB + groups + "quorum g1024\n")


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_stumble(data):
    try:
        read(data)
    except InvalidWitnessPolicyError:
        return


@given(st.sets(st.sampled_from([HUB_ED.key, HUB_ML.key, *PEERS])), st.sampled_from(PEERS))
def test_one_more_cosigner_never_hurts(signed, one):
    policy = read(WHOLE)
    assert policy.met(signed) <= policy.met(signed | {one})
