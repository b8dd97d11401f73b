"""The hospital's side of both standard ways in: a C-STORE SCU and a STOW-RS client."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pydicom
from pynetdicom import _config as pynetdicom_config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.status import code_to_category

from bedside_edge.demo.problem import DemoError
from bedside_edge.demo.service import Addresses
from bedside_edge.dicom.scu import keep_answers

CALLING_AE = "DEMO_MODALITY"
_BOUNDARY = "bedside-demo-5f1c0e6a"
_CHUNK = 1 << 20  # bytes


def send_c_store(box: Addresses, paths: Sequence[Path]) -> list[str]:
    """Send files over one association, each in its own transfer syntax; return the answers.

    The files go out byte for byte: nothing is decoded or written anew on the way.

    Raises:
        DemoError: the box refused the association or one of the presentation contexts.
    """
    entity = ApplicationEntity(ae_title=CALLING_AE)
    for sop_class, syntaxes in _offers(paths).items():
        for syntax in syntaxes:  # a context each, so that the box cannot ask for another encoding
            entity.add_requested_context(sop_class, syntax)
    association = entity.associate(box.dicom_host, box.dicom_port, ae_title=box.ae_title)
    if not association.is_established:
        raise DemoError("the box did not accept the DICOM association")
    keep_answers(association)
    whole_files, pynetdicom_config.STORE_SEND_CHUNKED_DATASET = (
        pynetdicom_config.STORE_SEND_CHUNKED_DATASET,
        True,
    )
    try:
        return [_answer(association.send_c_store(path)) for path in paths]
    except (ValueError, RuntimeError) as cause:
        raise DemoError(f"C-STORE could not be sent: {cause}") from cause
    finally:
        pynetdicom_config.STORE_SEND_CHUNKED_DATASET = whole_files
        association.release()


def send_stow(client: httpx.Client, paths: Sequence[Path]) -> list[str]:
    """Send files in one STOW-RS request, streamed; return an answer for each, in order.

    Raises:
        DemoError: the box answered with a problem instead of a Store Instances Response.
    """
    kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
    reply = client.post(
        "/dicom-web/studies", content=_multipart(paths), headers={"Content-Type": kind}
    )
    if reply.headers.get("content-type") != "application/dicom+json":
        raise DemoError(f"STOW-RS answered {reply.status_code}: {reply.text[:300]}")
    failed = {
        _uid(item): f"failed, reason 0x{item['00081197']['Value'][0]:04X}"
        for item in reply.json().get("00081198", {}).get("Value", [])
    }
    unnamed = reply.json().get("0008119A", {}).get("Value", [])
    stored = f"{reply.status_code} stored"
    if unnamed and len(paths) == 1:  # what could not even be read has no UID to answer for
        return [f"failed, reason 0x{unnamed[0]['00081197']['Value'][0]:04X}"]
    return [failed.get(_instance_uid(path), stored) for path in paths]


def _offers(paths: Sequence[Path]) -> dict[str, list[str]]:
    offers: dict[str, list[str]] = {}
    for path in paths:
        meta = pydicom.filereader.read_file_meta_info(path)
        syntaxes = offers.setdefault(str(meta.MediaStorageSOPClassUID), [])
        if str(meta.TransferSyntaxUID) not in syntaxes:
            syntaxes.append(str(meta.TransferSyntaxUID))
    return offers


def _answer(status: pydicom.Dataset) -> str:
    if "Status" not in status:
        return "no answer"
    code = int(status.Status)
    return f"0x{code:04X} {code_to_category(code)}"


def _multipart(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        yield f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield b"\r\n"
    yield f"--{_BOUNDARY}--\r\n".encode()


def _uid(item: dict[str, dict[str, list[str]]]) -> str:
    return item["00081155"]["Value"][0]


def _instance_uid(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(pydicom.filereader.read_file_meta_info(path).MediaStorageSOPInstanceUID)
