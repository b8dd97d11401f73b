"""What a box says it runs, signed with its identity: what a staged rollout counts by."""

from typing import Annotated, Literal

from pydantic import Field

from bedside_core.errors import InvalidMessageError, UntrustedSignatureError
from bedside_core.signatures import PublicKey, Sign
from bedside_sync.secagg.bodies import HEX_32, HEX_64, NAME, Body, decode
from bedside_sync.secagg.prg import Tag, signed_bytes

_Hex32 = Annotated[str, Field(pattern=HEX_32)]
_Time = Annotated[int, Field(ge=0, le=2**53 - 1)]


class SlotReport(Body):
    """One slot that is not empty.

    Attributes:
        slot: `app`, `profile`, `policy` or `model/<name>`.
        package: digest of the manifest in it.
        serving: 1 when the box acts on it.
        reason: code, of a bad one.
        record: digest of the acceptance record, of one that was good.
        since: seconds at which it came into this state.
    """

    slot: Annotated[str, Field(pattern=r"^[a-z]+(/[a-z0-9][a-z0-9.-]{0,62})?$", max_length=80)]
    name: Literal["a", "b"]
    state: Literal["staging", "staged", "verified", "trial", "good", "bad"]
    package: _Hex32
    release_counter: _Time
    serving: Annotated[int, Field(ge=0, le=1)]
    reason: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,64}$")] = ""
    record: _Hex32 | Literal[""] = ""
    since: _Time = 0


class Inventory(Body):
    """Everything flashed on one box; says nothing about a patient or a study.

    Attributes:
        at: the box's time in seconds; grows from one inventory to the next.
        serial: of the newest assignment the box has seen; 0 before any.
        code: how the last look at the repository ended; empty when well.
        alarms: alarms a person at the site should look at.
    """

    format: Literal["bedside-inventory/1"] = "bedside-inventory/1"
    box: Annotated[str, Field(pattern=NAME)]
    at: _Time
    serial: _Time = 0
    code: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,64}$")] = ""
    alarms: _Time = 0
    slots: Annotated[tuple[SlotReport, ...], Field(max_length=256)] = ()


class SignedInventory(Body):
    """An inventory under its box's identity."""

    inventory: Inventory
    signature: Annotated[str, Field(pattern=HEX_64)]


def sign_inventory(inventory: Inventory, sign: Sign) -> SignedInventory:
    """Return the inventory, signed."""
    message = signed_bytes(Tag.INVENTORY, inventory.encode())
    return SignedInventory(inventory=inventory, signature=sign(message).hex())


def check_inventory(data: bytes, box: str, key: PublicKey) -> Inventory:
    """Return the inventory in `data`.

    Raises:
        InvalidMessageError: it is none, or of another box.
        UntrustedSignatureError: its box did not sign it.
    """
    signed = decode(SignedInventory, data)
    if signed.inventory.box != box:
        raise InvalidMessageError("a box reports its own inventory only")
    message = signed_bytes(Tag.INVENTORY, signed.inventory.encode())
    if not key.accepts(message, bytes.fromhex(signed.signature)):
        raise UntrustedSignatureError("the inventory is not signed by its box")
    return signed.inventory
