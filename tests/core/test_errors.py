"""What an error carries besides its words."""

from bedside_core.errors import HubRefusedError


def test_a_hubs_refusal_keeps_the_hubs_own_code_beside_ours():
    refused = HubRefusedError("round-refused", "late")
    assert (refused.code, refused.reason, str(refused)) == ("hub-refused", "round-refused", "late")
