"""TLS on a real box: HTTP with and without client certificates, DICOM with dcmtk's own TLS."""

import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydicom import dcmread

from bedside_edge.dicom.scu import Peer, TlsFiles, echo
from bedside_edge.dicom.send import StoreScu
from bedside_edge.services.outputs import Kind
from support.certificates import Authority
from support.chest import chest
from support.orthanc import free_port
from support.running_box import part10, running_box


class Files:
    """An authority's certificates as files."""

    def __init__(self, folder):
        self.folder, self.authority = folder, Authority()
        self.ca = self.write("ca.pem", self.authority.pem)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def issue(self, common, authority=None, **options):
        issued = (authority or self.authority).issue(common, **options)
        return (
            self.write(f"{common}.pem", issued.certificate),
            self.write(f"{common}.key", issued.key),
        )

    @staticmethod
    def fingerprint(path):
        der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
        return hashlib.sha256(der).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def box(files, tmp_path_factory):
    certificate, key = files.issue("box")
    files.issue("viewer")
    files.issue("named")
    files.issue("stranger")
    files.issue("old", days=-1)
    files.issue("forged", Authority("another authority"))
    tls = f'certificate_file = "{certificate}"\nkey_file = "{key}"\nclient_ca_file = "{files.ca}"'
    settings = f"""
[http]
{tls}
client_auth = "optional"
[clients.viewer]
fingerprint = "{files.fingerprint(files.folder / "viewer.pem")}"
actions = ["view-worklist", "view-image"]
[clients.other]
common_name = "named"
actions = ["monitor"]
[dicom]
{tls}
client_auth = "required"
[dicom.peers.ct]
ae_title = "CT"
addresses = ["127.0.0.1"]
[dicom.peers.elsewhere]
ae_title = "FAR"
addresses = ["10.9.0.0/16"]
"""
    with running_box(tmp_path_factory.mktemp("box"), settings) as box:
        yield box
        assert box.stop() == 0


def client(files, box, name="", token=""):
    context = ssl.create_default_context(cafile=files.ca)
    if name:
        context.load_cert_chain(files.folder / f"{name}.pem", files.folder / f"{name}.key")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=box.url, verify=context, headers=headers, timeout=20)


def test_the_box_speaks_https_and_says_so(files, box):
    assert box.url.startswith("https://")
    with client(files, box, token=box.token) as http:
        answer = http.get("/api/v1/jobs")
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"]
    with pytest.raises(httpx.HTTPError):
        httpx.get(box.url.replace("https", "http") + "/livez", timeout=5)


def test_a_certificate_of_the_table_is_that_system_and_may_what_the_table_says(files, box):
    with client(files, box, "viewer") as http:
        assert http.get("/dicom-web/studies").status_code == 204
        assert http.get("/metrics").status_code == 403
        assert http.post("/dicom-web/studies", content=b"x").status_code == 403
    with client(files, box, "named") as http:
        assert http.get("/metrics").status_code == 200


def test_a_valid_certificate_in_no_table_is_nobody(files, box):
    with client(files, box, "stranger") as http:
        assert http.get("/metrics").status_code == 401
    with client(files, box) as http:
        assert http.get("/metrics").status_code == 401


def test_the_right_name_by_another_authority_is_nobody(files, box):
    issued = Authority("another authority").issue("named")
    files.write("imposter.pem", issued.certificate)
    files.write("imposter.key", issued.key)
    with client(files, box, "imposter") as http, pytest.raises(httpx.HTTPError):
        http.get("/metrics")


@pytest.mark.parametrize("name", ["old", "forged"])
def test_a_certificate_that_does_not_count_ends_the_handshake(files, box, name):
    with client(files, box, name) as http, pytest.raises(httpx.HTTPError):
        http.get("/livez")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_not_spoken(files, box, version):
    host, port = box.url.removeprefix("https://").split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((host, int(port)), 5) as plain,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_new_certificate_is_used_after_a_hangup_signal(files, box):
    host, port = box.url.removeprefix("https://").split(":")

    def serial():
        pem = ssl.get_server_certificate((host, int(port)))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    before = serial()
    files.issue("box")
    assert serial() == before
    box.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while serial() == before:
        assert time.monotonic() < until
        time.sleep(0.05)
    files.write("box.key", "not a key")
    box.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while "certificate not reloaded" not in box.log():
        assert time.monotonic() < until
        time.sleep(0.05)
    with client(files, box) as http:
        assert http.get("/livez").status_code == 200
    files.issue("box")


# --- DICOM -------------------------------------------------------------------------------------


def called(files, box, name="viewer", title="CT"):
    tls = TlsFiles(
        ca_file=files.ca,
        certificate_file=str(files.folder / f"{name}.pem") if name else "",
        key_file=str(files.folder / f"{name}.key") if name else "",
    )
    return Peer(
        host="127.0.0.1",
        port=box.dicom["port"],
        called_ae="BEDSIDE",
        calling_ae=title,
        timeout_s=10,
        tls=tls,
    )


def test_a_named_node_with_a_certificate_is_served(files, box):
    assert echo(called(files, box)) == "C-ECHO answered"


@pytest.mark.parametrize(
    ("name", "title"),
    [("viewer", "FAR"), ("viewer", "OTHER"), ("", "CT"), ("forged", "CT"), ("old", "CT")],
)
def test_any_other_node_is_not(files, box, name, title):
    from bedside_core.errors import DestinationUnavailableError

    with pytest.raises(DestinationUnavailableError):
        echo(called(files, box, name, title))


def test_without_tls_nothing_is_said(box):
    with socket.create_connection(("127.0.0.1", box.dicom["port"]), 5) as plain:
        plain.sendall(b"\x01\x00\x00\x00\x00\x04abcd")
        plain.settimeout(10)
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
        assert not answer.startswith((b"\x02", b"\x03", b"\x07"))  # no PDU of DICOM


def dcmtk(name):
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"needs dcmtk's {name}")
    return program


@pytest.mark.peer
def test_storescu_sends_over_tls(files, box, tmp_path):
    path = tmp_path / "one.dcm"
    path.write_bytes(part10(chest(1)))
    pem, key = str(files.folder / "viewer.pem"), str(files.folder / "viewer.key")
    call = [dcmtk("storescu"), "+tls", key, pem, "+cf", files.ca, "-aet", "CT", "-aec", "BEDSIDE"]
    done = subprocess.run(
        [*call, "127.0.0.1", str(box.dicom["port"]), str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    with client(files, box, token=box.token) as http:
        sent = dcmread(path)
        found = http.get(f"/dicom-web/studies?StudyInstanceUID={sent.StudyInstanceUID}")
        assert found.status_code == 200
    without = [dcmtk("storescu"), "-aet", "CT", "-aec", "BEDSIDE", "127.0.0.1"]
    refused = subprocess.run(
        [*without, str(box.dicom["port"]), str(path)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode != 0


@pytest.mark.peer
def test_the_box_sends_to_storescp_over_tls_and_checks_it(files, tmp_path):
    files.issue("archive")
    files.issue("archive-forged", Authority("another authority"))
    for name, fits in (("archive", True), ("archive-forged", False)):
        port, into = free_port(), tmp_path / name
        into.mkdir()
        pem, key = str(files.folder / f"{name}.pem"), str(files.folder / f"{name}.key")
        call = [dcmtk("storescp"), "+tls", key, pem, "+cf", files.ca, "-od", str(into), str(port)]
        with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as archive:
            try:
                peer = called_archive(files, port)
                until = time.monotonic() + 20
                while True:
                    with socket.socket() as probe:
                        if probe.connect_ex(("127.0.0.1", port)) == 0:
                            break
                    assert time.monotonic() < until
                    time.sleep(0.05)
                sent = chest(2)
                if fits:
                    with StoreScu("archive", peer, frozenset(Kind)).open(
                        [sent.SOPClassUID]
                    ) as session:
                        session.send(part10(sent))
                    assert len(list(into.iterdir())) == 1
                else:
                    from bedside_core.errors import DestinationUnavailableError

                    with pytest.raises(DestinationUnavailableError):
                        echo(peer)
            finally:
                archive.kill()


def called_archive(files, port):
    return Peer(
        host="127.0.0.1",
        port=port,
        called_ae="ARCHIVE",
        calling_ae="BEDSIDE",
        timeout_s=10,
        tls=TlsFiles(
            ca_file=files.ca,
            certificate_file=str(files.folder / "viewer.pem"),
            key_file=str(files.folder / "viewer.key"),
        ),
    )


def test_a_box_for_other_machines_answers_by_its_names_only(files, tmp_path):
    certificate, key = files.issue("ai-box.example")
    tls = f'certificate_file = "{certificate}"\nkey_file = "{key}"'
    settings = f"""
[http]
host = "0.0.0.0"
names = ["ai-box.example"]
{tls}
[dicom]
host = "0.0.0.0"
[dicom.peers.ct]
ae_title = "CT"
addresses = ["127.0.0.0/8"]
"""
    with running_box(tmp_path, settings) as box:
        port = box.url.rpartition(":")[2]
        context = ssl.create_default_context(cafile=files.ca)
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context) as http:
            for host, status in (
                ("ai-box.example", 200),
                (f"ai-box.example:{port}", 200),
                (f"127.0.0.1:{port}", 200),
                ("evil.example", 403),
            ):
                assert http.get("/livez", headers={"Host": host}).status_code == status, host
        call = [sys.executable, "-m", "bedside_edge", "models", "list", "--url"]
        done = subprocess.run(
            [*call, f"https://127.0.0.1:{port}"],
            env=os.environ | {"SSL_CERT_FILE": files.ca, "BEDSIDE_TOKEN": box.token},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert box.stop() == 0


def test_an_unsecured_address_is_refused_with_the_reason(tmp_path):
    (tmp_path / "bedside.toml").write_text('[http]\nhost = "0.0.0.0"\n')
    call = [sys.executable, "-m", "bedside_edge", "serve", "--state", str(tmp_path / "state")]
    done = subprocess.run(
        [*call, "--config", str(tmp_path / "bedside.toml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 4
    assert "certificate_file and key_file" in done.stderr
