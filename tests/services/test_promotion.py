"""A box takes a promotion only of the package it holds, by the administrators it pinned."""

from types import SimpleNamespace

import pytest

from bedside_core.errors import (
    InvalidInputError,
    InvalidMessageError,
    NotReadyError,
    RoundRefusedError,
    UntrustedSignatureError,
)
from bedside_edge.services.promotion import promoted
from bedside_sync.promotion import GroupFigure, Promotion, SignedPromotion
from bedside_sync.secagg.prg import Tag
from support.consortium import Consortium
from support.http_box import HttpBox

PACKAGE = "1" * 64  # of the fake model
AMONG = Consortium()


def signed(by="ab", among=AMONG, **changes) -> bytes:
    given = {
        "model": "sample",
        "model_version": "1.0.0",
        "package": PACKAGE,
        "round": "validate-1",
        "record": "cd" * 32,
        "organisations": 5,
        "figures": [GroupFigure(group="all", value=900, lower=850, upper=950)],
        "unknown": [],
        "made": 1_800_000_000,
    }
    found = Promotion(**(given | changes))
    return SignedPromotion(
        promotion=found, signatures=among.sign(Tag.PROMOTION, found.encode(), by=by)
    ).encode()


def member(root=AMONG.root):
    welcome = None if root is None else SimpleNamespace(root=root)
    return SimpleNamespace(status=lambda: SimpleNamespace(welcome=welcome))


@pytest.fixture(scope="module")
def models():
    with HttpBox() as box:
        yield box.models


def test_a_promotion_of_the_package_on_the_box_is_taken(models):
    found = promoted(signed() + b"\n", "sample", "1.0.0", models, member())
    assert found.round == "validate-1"


@pytest.mark.parametrize(
    ("data", "sync", "error"),
    [
        (b"{}", member(), InvalidMessageError),
        (signed(), member(None), NotReadyError),
        (signed(), None, NotReadyError),
        (signed(model="other"), member(), InvalidInputError),
        (signed(model_version="1.0.1"), member(), InvalidInputError),
        (signed(by="a"), member(), UntrustedSignatureError),
        (signed(among=Consortium()), member(), UntrustedSignatureError),
        (signed(package="2" * 64), member(), RoundRefusedError),
    ],
)
def test_others_are_refused(models, data, sync, error):
    with pytest.raises(error):
        promoted(data, "sample", "1.0.0", models, sync)


def test_over_http_nothing_changes_when_it_is_refused():
    with HttpBox() as box:
        body = {"version": "1.0.0", "promotion": signed().decode()}
        way = "/api/v1/models/second/active"
        answer = box.client.request("PUT", way, json=body, headers={"If-Match": "*"})
        assert answer.status_code == 503
        assert "not-ready" in answer.text
