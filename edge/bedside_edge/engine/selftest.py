"""The start-up self-test: does this engine, on this machine, give the answers that are known?

Runs every golden case of the package through the pixel pipeline and the compiled engine. A case
that fails names itself, the engine and how far off it was; nothing is served then.
"""

from dataclasses import dataclass

from bedside_core.errors import GoldenMismatchError, RefusedError
from bedside_core.golden import GoldenCase, check_logit, check_tensor
from bedside_core.imaging import Prepared, prepare
from bedside_core.manifest import Variant
from bedside_edge.engine.package import Package
from bedside_edge.ports import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What the self-test saw: each case's logit and the largest difference from the known one."""

    logits: tuple[float, ...]
    worst_logit: float
    allowed_logit: float

    @property
    def cases(self) -> int:
        """Number of golden cases that were run."""
        return len(self.logits)


def self_test(
    package: Package,
    cases: list[tuple[GoldenCase, Prepared]],
    engine: Engine,
    variant: Variant,
    limit: float,
) -> SelfTest:
    """Run every golden case.

    Args:
        package: the opened package.
        cases: its golden cases as `prepare_cases` made them.
        engine: the compiled engine.
        variant: the export it runs; its manifest tolerance holds.
        limit: the hardware profile's tolerance of a logit; the smaller of the two holds.

    Raises:
        GoldenMismatchError: a logit or decision is not the known one.
    """
    allowed = min(limit, variant.tolerance.golden_logit)
    worst, logits = 0.0, []
    for case, prepared in cases:
        logit = engine.run(prepared.tensor).logit
        worst = max(worst, check_logit(case, variant.engine, variant.precision, logit, allowed))
        _check_decision(package, case, variant, logit)
        logits.append(logit)
    return SelfTest(logits=tuple(logits), worst_logit=worst, allowed_logit=allowed)


def prepare_cases(package: Package) -> list[tuple[GoldenCase, Prepared]]:
    """Return every golden case with what the pixel pipeline makes of it here.

    Raises:
        GoldenMismatchError: the pipeline makes another tensor on this machine.
        InvalidPackageError: a frame is not the manifest's.
    """
    done = []
    for case in package.golden.cases:
        data = package.read(case.frame.path)
        try:
            prepared = prepare(case.frame.frame(data), package.spec)
        except RefusedError as why:
            raise GoldenMismatchError(f"golden case {case.name} is refused: {why.code}") from why
        check_tensor(case, prepared.tensor)
        done.append((case, prepared))
    return done


def _check_decision(package: Package, case: GoldenCase, variant: Variant, logit: float) -> None:
    manifest = package.manifest
    decision = manifest.decision.value().decide(manifest.calibration.value().probability(logit))
    known = case.answer(variant.engine, variant.precision)
    if decision != known.decision:
        raise GoldenMismatchError(
            f"golden case {case.name}: {variant.engine} {variant.precision} decides {decision}, "
            f"{known.decision} is known"
        )
