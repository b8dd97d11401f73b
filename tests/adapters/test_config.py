from pathlib import Path

import pytest

from bedside_core.errors import InvalidConfigError
from bedside_edge.config import CONFIG_VARIABLE, STATE_VARIABLE, Config, load_config, parse_config


def test_the_box_starts_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, folder = load_config(environ={})
    assert config == Config()
    assert folder == Path("~/.local/state/bedside").expanduser()


def test_a_setting_that_is_written_is_the_one_in_force():
    config = parse_config('[http]\nport = 9000\n[log]\nlevel = "warning"\n')
    assert (config.http.port, config.log.level) == (9000, "warning")
    assert config.http.max_body_bytes == Config().http.max_body_bytes


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[http]\nprot = 9000", "http.prot"),
        ("[htpp]\nport = 9000", "htpp"),
        ('[http]\nport = "9000"', "http.port"),
        ("[http]\nport = true", "http.port"),
        ("[http]\nport = 70000", "http.port"),
        ("[jobs]\nattempts = 0", "jobs.attempts"),
        ("[disk]\nhigh_watermark = 1.5", "disk.high_watermark"),
        ("[dicom]\nidle_timeout_s = inf", "dicom.idle_timeout_s"),
        ("[dicom]\nidle_timeout_s = nan", "dicom.idle_timeout_s"),
        ('[dicom]\nae_title = "SEVENTEEN_LETTERS"', "dicom.ae_title"),
        ('[dicom]\nae_title = "BACK\\\\SLASH"', "dicom.ae_title"),
        ('[model]\nprecision = "f16"', "model.precision"),
        ('[completion.per_source.CT1]\npriority = "high"', "completion.per_source.CT1.priority"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(text, named):
    with pytest.raises(InvalidConfigError, match=named):
        parse_config(text)


TLS = 'certificate_file = "c.pem"\nkey_file = "k.pem"\n'
PEER = '[dicom.peers.ct]\nae_title = "CT"\naddresses = ["10.1.0.0/16"]\n'
REACHED = ["0.0.0.0", "::", "192.168.1.5"]  # noqa: S104


@pytest.mark.parametrize("host", REACHED)
def test_others_reach_the_http_service_over_tls_only(host):
    with pytest.raises(InvalidConfigError, match="certificate_file and key_file"):
        parse_config(f'[http]\nhost = "{host}"')
    assert parse_config(f'[http]\nhost = "{host}"\n{TLS}').http.tls


@pytest.mark.parametrize("host", REACHED)
def test_others_reach_the_receiver_only_where_they_are_named(host):
    with pytest.raises(InvalidConfigError, match=r"dicom\.peers"):
        parse_config(f'[dicom]\nhost = "{host}"')
    with pytest.raises(InvalidConfigError, match=r"dicom\.peers"):
        parse_config(f'[dicom]\nhost = "{host}"\nallowed_calling_ae = ["CT"]')
    assert parse_config(f'[dicom]\nhost = "{host}"\n{PEER}').dicom.peers["ct"].ae_title == "CT"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[http]\nhost = "hospital.example"', "IP address"),
        ('[http]\ncertificate_file = "c.pem"', "belong together"),
        ('[http]\nclient_auth = "required"', "client_auth needs"),
        (f'[http]\n{TLS}client_auth = "optional"', "client_ca_file"),
        ('[clients.pacs]\nactions = ["store"]', "fingerprint or by its common name"),
        ('[clients.pacs]\ncommon_name = "pacs"\nactions = []', "words of"),
        ('[clients.pacs]\ncommon_name = "pacs"\nactions = ["review"]', "persons only"),
        ('[clients.pacs]\nfingerprint = "ABC"\nactions = ["store"]', "fingerprint"),
        ('[dicom.peers.ct]\nae_title = "CT"\naddresses = []', "addresses"),
        ('[dicom.peers.ct]\nae_title = "CT"\naddresses = ["10.1.2.3/8"]', "network"),
    ],
)
def test_half_a_transport_is_refused(text, named):
    with pytest.raises(InvalidConfigError, match=named):
        parse_config(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_every_loopback_address_may_be_bound(host):
    assert parse_config(f'[http]\nhost = "{host}"').http.host == host


def test_what_is_no_toml_is_an_error():
    with pytest.raises(InvalidConfigError, match="not TOML"):
        parse_config("[http\nport=1")


def test_senders_can_have_rules_of_their_own():
    text = '[completion.per_source.CT1]\nquiet_s = 60\npriority = "stat"\n'
    rules = parse_config(text).completion.per_source["CT1"]
    assert (rules.quiet_s, rules.priority) == (60, "stat")


def test_settings_cannot_be_changed_once_read():
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.http.port = 1


def test_the_environment_says_where_things_lie(tmp_path):
    file = tmp_path / "site.toml"
    file.write_text("[http]\nport = 9001\n")
    config, folder = load_config(
        environ={CONFIG_VARIABLE: str(file), STATE_VARIABLE: str(tmp_path / "state")}
    )
    assert config.http.port == 9001
    assert folder == tmp_path / "state"


def test_the_command_line_outranks_the_environment(tmp_path):
    named, other = tmp_path / "a.toml", tmp_path / "b.toml"
    named.write_text("[http]\nport = 9002\n")
    other.write_text("[http]\nport = 9003\n")
    config, _ = load_config(named, environ={CONFIG_VARIABLE: str(other)})
    assert config.http.port == 9002


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(InvalidConfigError, match="does not exist"):
        load_config(tmp_path / "absent.toml", environ={})


def test_a_file_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "binary.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidConfigError, match="UTF-8"):
        load_config(file, environ={})
    with pytest.raises(InvalidConfigError, match="cannot be read"):
        load_config(tmp_path, environ={})


DESTINATIONS = [
    "[destinations.pacs]",  # no host
    '[destinations.pacs]\nkind = "dicomweb"',
    '[destinations.pacs]\nkind = "dicomweb"\nurl = "ftp://pacs"',
    '[destinations.pacs]\nhost = "pacs"\nfetch = "wado"',
    '[destinations.pacs]\nkind = "dicomweb"\nurl = "https://pacs/dicom-web"\nfetch = "c-get"',
    '[destinations.PACS]\nhost = "pacs"',
    '[destinations.pacs]\nhost = "pacs"\nobjects = ["ko"]',
    "[delivery]\ngive_up_h = 0",
]


@pytest.mark.parametrize("text", DESTINATIONS)
def test_a_destination_that_cannot_be_reached_or_sent_to_is_refused(text):
    with pytest.raises(InvalidConfigError):
        parse_config(text)


def test_a_destination_needs_only_an_address():
    pacs = parse_config('[destinations.pacs]\nhost = "pacs"').destinations["pacs"]
    assert (pacs.kind, pacs.send, pacs.objects) == ("dicom", True, ["sr", "sc", "seg"])
