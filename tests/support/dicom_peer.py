"""A DICOM node in this process that answers C-STORE and C-ECHO as told; TLS when asked."""

import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pynetdicom import AE, evt

VERIFICATION = "1.2.840.10008.1.1"


class DicomPeer:
    """What arrived, and what is answered."""

    def __init__(self) -> None:
        self.status = 0x0000
        self.aborts = False
        self.received: list[str] = []
        self.port = 0

    def store(self, event: evt.Event) -> int:
        if self.aborts:
            event.assoc.abort()
            return 0x0000
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        return self.status


@contextlib.contextmanager
def dicom_peer(
    classes: Sequence[str], context: ssl.SSLContext | None = None
) -> Iterator[DicomPeer]:
    """Listen on loopback for the given SOP Classes under the AE title PEER."""
    peer = DicomPeer()
    entity = AE(ae_title="PEER")
    entity.require_called_aet = True
    for sop_class in (VERIFICATION, *classes):
        entity.add_supported_context(sop_class)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, peer.store)],
    )
    assert server is not None
    peer.port = server.server_address[1]
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "peer.pem", folder / "peer.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
