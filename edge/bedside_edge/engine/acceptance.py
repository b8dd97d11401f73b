"""Runs an engine's golden cases many times, as it will serve, and says what it is."""

import hashlib
import math
import time

from bedside_core.hardware.acceptance import CaseRuns, Subject
from bedside_core.hardware.board import Board
from bedside_core.hardware.profile import LoadedProfile
from bedside_edge.engine.opening import Opened
from bedside_edge.engine.package import Package
from bedside_edge.engine.selftest import prepare_cases


def subject_of(opened: Opened, package: Package, profile: LoadedProfile, board: Board) -> Subject:
    """Return what a verdict on this engine is about, as read back."""
    info, plan = opened.engine.info, opened.plan
    wanted = {(pci.vendor, device) for pci in profile.profile.match.pci for device in pci.device}
    drivers = {
        f"{one.driver} {one.driver_version}".strip()
        for one in board.pci
        if (one.vendor, one.device) in wanted and one.driver
    }
    return Subject(
        profile_id=profile.profile.id,
        profile_seq=profile.profile.seq,
        profile_digest=profile.digest,
        package_digest=package.digest,
        engine=info.engine,
        engine_version=info.version,
        device=info.device,
        precision=info.precision,
        streams=plan.streams,
        threads=plan.threads,
        latency_threads=plan.latency_threads,
        properties=dict(opened.engine.readback),
        drivers=tuple(sorted(drivers)),
        kernel=board.kernel,
    )


def run_cases(
    opened: Opened, package: Package, profile: LoadedProfile, runs: int | None = None
) -> tuple[CaseRuns, ...]:
    """Return every golden case with its timed runs.

    Args:
        opened: the engine.
        package: whose cases are run.
        profile: how often each case asks.
        runs: timed runs in all, in place of what the profile asks.
    """
    cases = prepare_cases(package)
    tensors = [prepared.tensor for _, prepared in cases]
    for index in range(opened.choice.warmup):
        opened.engine.run(tensors[index % len(tensors)])
    manifest, variant = package.manifest, opened.variant
    calibration, rule = manifest.calibration.value(), manifest.decision.value()
    asked = profile.profile.cases_for(variant.precision)
    done = []
    for case, prepared in cases:
        logits, times, seen = [], [], set()
        counts = [
            math.ceil((runs or one.n) / (len(cases) if one.case == "*" else 1))
            for one in asked
            if one.case in ("*", case.name)
        ]
        for _ in range(max(counts, default=0)):
            begun = time.perf_counter()
            outputs = opened.engine.run(prepared.tensor)
            times.append((time.perf_counter() - begun) * 1000)
            logits.append(outputs.logit)
            bits = hashlib.sha256(repr(outputs.logit).encode())
            bits.update(outputs.features.tobytes())
            bits.update(outputs.cam.tobytes())
            seen.add(bits.digest())
        answer = case.answer(variant.engine, variant.precision)
        probabilities = [calibration.probability(logit) for logit in logits]
        done.append(
            CaseRuns(
                name=case.name,
                tensor_sha256=case.tensor.sha256,
                known_logit=answer.logit,
                known_probability=answer.probability,
                known_decision=answer.decision,
                logits=tuple(logits),
                probabilities=tuple(probabilities),
                decisions=tuple(str(rule.decide(one)) for one in probabilities),
                times_ms=tuple(times),
                repeated=len(seen) <= 1,
            )
        )
    return tuple(done)
