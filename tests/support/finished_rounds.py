"""A finished round as the hub holds it, made from what each site would bring."""

import math
import os

import numpy as np

from bedside_sync.hub.sums import OpenedSum
from bedside_sync.secagg import tally
from bedside_sync.secagg.gauss import draw_noise
from bedside_sync.secagg.manifest import Segment, round_cost
from bedside_sync.tasks.kinds import plan_lines, read_settings
from support.consortium import NOW, Consortium, Round

NOTHING = "00" * 32


def words(count):
    return np.frombuffer(os.urandom(4 * count), np.uint32)


def long_words(count):
    return np.frombuffer(os.urandom(8 * count), np.uint64)


def finished(among: Consortium, name, task, settings: bytes, vectors, *, model, z=2.0) -> OpenedSum:
    """Mask, add and open the sites' vectors with the rules of a real round; noise `z` in all."""
    import hashlib

    lines = plan_lines(read_settings(task, settings))
    boxes = list(among.roster.members)[: len(vectors)]
    sigma2 = max(25, math.ceil(z * z * lines["sensitivity2"] / len(vectors)))
    plan = {
        "round": name,
        "task": task,
        "model": model,
        "settings": hashlib.sha256(settings).hexdigest(),
        "sigma2": sigma2,
        "least_boxes": len(vectors),
        "segments": [Segment(**one) for one in lines["segments"]],
        **{key: lines[key] for key in ("scale", "sensitivity2", "largest")},
    }
    length = sum(one["length"] for one in lines["segments"])
    night = Round(among, length=length, changes=plan)
    sealed = [
        night.report(box, vector + draw_noise(sigma2, length, long_words))
        for box, vector in zip(boxes, vectors, strict=True)
    ]
    total, _, signatures, tables, running = night.run(sealed)
    body = tally.TranscriptBody(
        manifest=night.signed,
        reports=[one.report for one in sealed],
        cosignatures=signatures,
        tables=tables,
        findings=[],
        withdrawn=[],
        total=tally.sum_digest(night.manifest, total),
        masked_total=tally.masked_digest(night.manifest, running.total),
        rho=round_cost(night.manifest),
        previous=NOTHING,
    )
    members = among.roster.members
    return OpenedSum(
        record=tally.publish(body, among.hub.sign),
        organisations=frozenset(members[box].organisation for box in boxes),
        total=total,
        settings=settings,
    )


MADE = NOW + 7200
