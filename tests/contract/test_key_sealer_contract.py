"""Promises of every Sealer: it opens what it sealed, shows nothing, and refuses with its code."""

import pytest

from bedside_core.errors import InvalidInputError, KeysSealedError
from bedside_edge.ports.key_protection import Protection
from bedside_edge.system.passphrase import PassphraseSealer, passphrase_at_hand
from bedside_edge.system.random_os import OsRandom
from bedside_edge.system.tpm2 import Tpm2Tools
from support.memory_sealer import MemorySealer
from support.swtpm import software_tpm

KEY = bytes(range(32))
WORDS = "correct horse battery staple"


@pytest.fixture(params=["memory", "passphrase", "tpm"])
def sealer(request, tmp_path, monkeypatch):
    """A sealer, and another of its kind that must not open what the first one sealed."""
    if request.param == "passphrase":
        yield PassphraseSealer(WORDS, OsRandom()), PassphraseSealer(WORDS + "s", OsRandom())
        return
    if request.param == "memory":
        yield MemorySealer(), None
        return
    with software_tpm(tmp_path / "tpm", monkeypatch):
        yield Tpm2Tools(), None


def test_what_was_sealed_opens_and_shows_nothing(sealer):
    one, other = sealer
    sealed = one.seal(KEY)
    assert one.unseal(sealed) == KEY
    assert KEY.hex() not in str(sealed)
    assert one.seal(KEY) != sealed
    if other:
        with pytest.raises(KeysSealedError):
            other.unseal(sealed)


def test_what_is_changed_or_missing_is_refused(sealer):
    one, _ = sealer
    sealed = dict(one.seal(KEY))
    for name, value in sealed.items():
        wrong = value + 1 if isinstance(value, int) else _spoilt(value)
        with pytest.raises(KeysSealedError):
            one.unseal(sealed | {name: wrong})
        with pytest.raises(KeysSealedError):
            one.unseal({other: sealed[other] for other in sealed if other != name})


def test_the_tpm_opens_only_in_the_state_it_sealed_in(tmp_path, monkeypatch):
    with software_tpm(tmp_path / "tpm", monkeypatch) as tpm:
        sealer = Tpm2Tools()
        sealed = sealer.seal(KEY)
        for _ in range(4):  # more than the three transient slots
            assert sealer.unseal(sealed) == KEY
        tpm.extend(4)  # not one of ours
        assert sealer.unseal(sealed) == KEY
        tpm.extend(7)
        with pytest.raises(KeysSealedError, match="firmware or Secure Boot"):
            sealer.unseal(sealed)
        tpm.off()
        with pytest.raises(KeysSealedError, match=r"does not answer.*keys recover"):
            sealer.unseal(sealed)
        tpm.on()  # the registers start again, and the object outlives the power cut
        monkeypatch.setenv("TPM2TOOLS_TCTI", tpm.tcti)
        assert sealer.unseal(sealed) == KEY
        with (
            software_tpm(tmp_path / "another", monkeypatch),
            pytest.raises(KeysSealedError, match="another TPM"),
        ):
            sealer.unseal(sealed)


def test_without_the_tools_the_refusal_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(KeysSealedError, match="not installed"):
        Tpm2Tools().seal(KEY)


def test_a_short_passphrase_seals_nothing():
    with pytest.raises(InvalidInputError):
        PassphraseSealer("short", OsRandom())
    assert PassphraseSealer(WORDS, OsRandom()).protection is Protection.PASSPHRASE


def test_a_costly_file_is_refused_before_it_costs():
    one = PassphraseSealer(WORDS, OsRandom())
    with pytest.raises(KeysSealedError, match="too much"):
        one.unseal(dict(one.seal(KEY)) | {"memory": 1 << 30})


def test_the_passphrase_comes_from_the_credential_or_the_named_file(tmp_path, monkeypatch):
    for name in ("BEDSIDE_KEYS_PASSPHRASE_FILE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(KeysSealedError, match="keys-passphrase"):
        passphrase_at_hand()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(KeysSealedError, match="cannot be read"):
        passphrase_at_hand()
    (tmp_path / "keys-passphrase").write_text(WORDS + "\n")
    assert passphrase_at_hand() == WORDS
    (tmp_path / "named").write_text("another " + WORDS)
    monkeypatch.setenv("BEDSIDE_KEYS_PASSPHRASE_FILE", str(tmp_path / "named"))
    assert passphrase_at_hand() == "another " + WORDS


def _spoilt(text):
    return text[:-8] + ("AAAAAAA=" if text[-8:] != "AAAAAAA=" else "BBBBBBB=")
