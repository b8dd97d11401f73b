"""What holds for every test: no network beyond this machine, laws tried the same way each run."""

import ipaddress
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two noisy cores: hypothesis' own deadline would fail on load, and a law should fail today if it
# fails tomorrow.
settings.register_profile(
    "bedside",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bedside")


class OutsideNetworkError(RuntimeError):
    """A test tried to leave this machine; not an OSError, so that no retry loop swallows it."""


def _is_local(host: object) -> bool:
    if not isinstance(host, str | bytes):
        return True  # None: a listening socket on this machine
    name = host.decode() if isinstance(host, bytes) else host
    if name in {"", "localhost"}:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse_to_leave(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            raise OutsideNetworkError("a test connects to another machine")
    elif event == "socket.getaddrinfo" and not _is_local(arguments[0]):
        raise OutsideNetworkError("a test looks up another machine")


sys.addaudithook(_refuse_to_leave)


@pytest.fixture(scope="session")
def cxr_folder() -> Path:
    """The chest radiographs beside the repository: never committed, absent on most machines."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "cxr"
    if not (folder / "labels.csv").exists():
        pytest.skip("needs the chest radiographs in ../shared/data/cxr, which are not committed")
    return folder
