"""Our PDU and command codecs against pynetdicom's, and against noise."""

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dsutils import decode
from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    P_DATA_TF,
)
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)

from bedside_edge.dicom import pdu
from bedside_edge.dicom.dimse import Command, Status, decode_command, encode_response
from bedside_edge.dicom.pdu import AbortReason, BadPduError, Rejection
from bedside_edge.dicom.scp import serves_storage
from support import dicom_scu as scu

CR = scu.CR


def their_request(*, roles=(), contexts=None):
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "SENDER", "BEDSIDE"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 32768
    implementation.implementation_class_uid = "1.2.3.4"
    primitive.user_information = [length, implementation]
    for sop_class in roles:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = sop_class, True, True
        primitive.user_information.append(role)
    proposed = contexts or [
        build_context(CR, ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"]),
        build_context("1.2.840.10008.1.1"),
        build_context("1.2.840.10008.5.1.4.1.2.2.1"),  # Study Root FIND
        build_context("1.2.276.0.9999.1"),  # private
    ]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = proposed
    return A_ASSOCIATE_RQ(primitive).encode()


def test_a_request_encoded_by_pynetdicom_is_understood():
    request = pdu.decode_associate_rq(their_request(roles=[CR])[6:])
    assert (request.called_ae, request.calling_ae) == ("BEDSIDE", "SENDER")
    assert request.max_pdu == 32768
    assert request.protocol_version == 1
    assert request.application_context == pdu.APPLICATION_CONTEXT
    assert request.roles == (CR,)
    assert [c.context_id for c in request.contexts] == [1, 3, 5, 7]
    assert request.contexts[0].transfer_syntaxes == (
        *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"),
    )


def test_our_answer_is_understood_by_pynetdicom():
    request = pdu.decode_associate_rq(their_request(roles=[CR])[6:])
    contexts = pdu.negotiate(
        request.contexts, lambda uid: uid == "1.2.840.10008.1.1" or serves_storage(uid)
    )
    answer = A_ASSOCIATE_AC()
    answer.decode(pdu.encode_associate_ac(request, contexts, 131072))
    primitive = answer.to_primitive()
    results = {c.context_id: c for c in primitive.presentation_context_definition_results_list}
    assert [results[i].result for i in (1, 3, 5, 7)] == [0, 0, 3, 0]
    assert results[1].transfer_syntax == ["1.2.840.10008.1.2.4.90"]
    assert primitive.maximum_length_received == 131072
    assert primitive.calling_ae_title == "SENDER"
    roles = [i for i in primitive.user_information if hasattr(i, "scu_role")]
    assert [(r.sop_class_uid, r.scu_role, r.scp_role) for r in roles] == [(CR, True, False)]


def test_a_context_without_a_usable_transfer_syntax_is_refused_as_such():
    request = pdu.decode_associate_rq(
        scu.associate_rq(scu.context(1, CR, "nonsense"), scu.context(3, CR))[6:]
    )
    assert [c.result for c in pdu.negotiate(request.contexts, serves_storage)] == [4, 4]


def test_every_storage_class_is_served_and_no_query():
    for context in AllStoragePresentationContexts:
        uid = str(context.abstract_syntax)
        patient_related = not uid.startswith(
            (
                *("1.2.840.10008.5.1.4.38.", "1.2.840.10008.5.1.4.39.", "1.2.840.10008.5.1.4.4"),
                "1.2.840.10008.5.1.4.1.1.200.",  # protocols: no patient in them
            )
        )
        assert serves_storage(uid) or not patient_related, uid
    for other in ("1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.31", "1.2.840.10008.1.20.1"):
        assert not serves_storage(other)


@pytest.mark.parametrize("why", Rejection)
def test_a_rejection_is_read_as_meant(why):
    theirs = A_ASSOCIATE_RJ()
    theirs.decode(pdu.encode_associate_rj(why))
    packed = theirs.result << 16 | theirs.source << 8 | theirs.reason_diagnostic
    assert packed == why
    assert theirs.reason_str


def test_release_and_abort_are_read_as_meant():
    release, abort = A_RELEASE_RP(), A_ABORT_RQ()
    release.decode(pdu.encode_release_rp())
    abort.decode(pdu.encode_abort(AbortReason.INVALID_PARAMETER))
    assert (abort.source, abort.reason_diagnostic) == (2, 6)


@pytest.mark.parametrize("max_pdu", [0, 100, 16384])
def test_a_response_is_read_as_meant_whatever_the_peer_can_take(max_pdu):
    request = Command(
        operation=1, message_id=9, has_data_set=True, sop_class_uid=CR, sop_instance_uid="1.2.3.45"
    )
    response = encode_response(request, Status.OUT_OF_RESOURCES, "disk-full")
    message = C_STORE_RSP()
    encoded, at = pdu.encode_command(5, response, max_pdu), 0
    while at < len(encoded):
        (length,) = struct.unpack_from(">I", encoded, at + 2)
        assert max_pdu == 0 or length <= max_pdu
        data = P_DATA_TF()
        data.decode(encoded[at : at + 6 + length])
        complete = message.decode_msg(data.to_primitive())
        at += 6 + length
    assert complete
    theirs = message.message_to_primitive()
    assert theirs.Status == 0xA700
    assert theirs.MessageIDBeingRespondedTo == 9
    assert theirs.AffectedSOPInstanceUID == "1.2.3.45"
    assert theirs.ErrorComment == "disk-full"


def test_a_response_is_a_data_set_with_a_right_group_length():
    request = Command(
        operation=0x30, message_id=1, has_data_set=False, sop_class_uid="1.2", sop_instance_uid=""
    )
    response = encode_response(request, 0)
    read = decode(BytesIO(response), True, True)
    assert read.CommandGroupLength == len(response) - 12
    assert read.CommandField == 0x8030
    assert "AffectedSOPInstanceUID" not in read


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(67),
        bytes(68),  # no presentation context
        scu.associate_rq(scu.context(2, CR, scu.EXPLICIT_LE))[6:],  # even id
        scu.associate_rq(*[scu.context(1, CR, scu.EXPLICIT_LE)] * 2)[6:],  # one id twice
        scu.associate_rq(extra=scu.item(0x54, b"\0\xff1.2"))[6:],
        scu.associate_rq()[6:-1],
        scu.associate_rq()[6:] + b"\x20\0",
        scu.associate_rq()[6:] + b"\x20\0\xff\xff",
    ],
)
def test_a_malformed_request_is_a_bad_pdu(body):
    with pytest.raises(BadPduError):
        pdu.decode_associate_rq(body)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\0",
        scu.echo_rq()[:-1],
        scu.echo_rq() + b"\x08\0\x16\0\0\0\0\0",
        scu.command(0x8001, sop_class=CR),  # a response
        scu.element(0x0100, b"\1\0"),  # no message id
        scu.element(0x0100, b"\1\0\0\0"),
    ],
)
def test_a_malformed_command_is_a_bad_pdu(data):
    with pytest.raises(BadPduError):
        decode_command(data)


@given(data=st.binary(max_size=400))
def test_noise_is_a_bad_pdu_or_a_value(data):
    for call in (pdu.decode_associate_rq, decode_command):
        try:
            call(data)
        except BadPduError:
            continue


REQUEST = scu.associate_rq()[6:]


@given(
    changes=st.lists(st.tuples(st.integers(0, len(REQUEST) - 1), st.integers(0, 255)), max_size=6)
)
def test_a_damaged_request_is_a_bad_pdu_or_a_value(changes):
    damaged = bytearray(REQUEST)
    for at, value in changes:
        damaged[at] = value
    try:
        request = pdu.decode_associate_rq(bytes(damaged))
    except BadPduError:
        return
    answer = pdu.encode_associate_ac(
        request, pdu.negotiate(request.contexts, serves_storage), 16384
    )
    assert answer[0] == 2
