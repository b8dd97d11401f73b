"""What the hub keeps of boxes' inventories, and of rollouts; and the step from one to the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bedside_core.errors import AlreadyExistsError, NotFoundError, TargetNotSignedError
from bedside_core.signatures import PublicKey
from bedside_sync.distribution.gateway import site_of
from bedside_sync.distribution.inventory import Inventory, SignedInventory, check_inventory
from bedside_sync.distribution.repository import Repository
from bedside_sync.hub.campaigns import (
    RUNNING,
    Campaign,
    Judgement,
    Plan,
    Verdict,
    follow,
    judge,
    stopped,
)
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.roster import Roster

_LARGEST = 4 << 20  # bytes of a campaign


def keep_inventory(store: HubStore, box: str, key: PublicKey, data: bytes) -> None:
    """Keep a box's newest inventory; an older one than that kept changes nothing.

    Raises:
        InvalidMessageError, UntrustedSignatureError: it is not this box's.
    """
    inventory = check_inventory(data, box, key)
    with store.write() as db:
        db.execute(
            "INSERT INTO inventory (box, at, body) VALUES (?1, ?2, ?3)"
            " ON CONFLICT (box) DO UPDATE SET at = ?2, body = ?3 WHERE at < ?2",
            (box, inventory.at, data),
        )


def inventories(store: HubStore) -> dict[str, Inventory]:
    """Return every box's newest inventory."""
    found = store.rows("SELECT box, body FROM inventory ORDER BY box")
    return {box: decode(SignedInventory, body).inventory for box, body in found}


def campaign(store: HubStore, name: str) -> Campaign:
    """Return a rollout; NotFoundError."""
    return decode(
        Campaign, store.row("SELECT body FROM campaign WHERE name = ?", name)[0], _LARGEST
    )


def campaigns(store: HubStore) -> list[Campaign]:
    """Return every rollout, the newest first."""
    found = store.rows("SELECT body FROM campaign ORDER BY seq DESC")
    return [decode(Campaign, body, _LARGEST) for (body,) in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Carries campaigns out: its only effect is a new revision of the assignments."""

    store: HubStore
    repository: Repository
    roster: Callable[[], Roster]
    now: Callable[[], int]

    def create(self, plan: Plan) -> Campaign:
        """Begin a rollout: the first group is assigned the package.

        Raises:
            AlreadyExistsError: there is one of this name.
            TargetNotSignedError: its owner has not published the package.
            NotFoundError: a box is not on the roster.
        """
        if self.store.rows("SELECT 1 FROM campaign WHERE name = ?", plan.name):
            raise AlreadyExistsError("there is a rollout of this name")
        digest = self.repository.packages().get(plan.path)
        if digest is None:
            raise TargetNotSignedError(f"{plan.path} is not published by its owner")
        for group in plan.groups:
            for box in group.boxes:
                self._site(box)
        slot = self.repository.manifest(plan.path, digest).slot
        made = Campaign(plan=plan, slot=slot, package=digest, since=self.now())
        return self._assign(made, 0)

    def look(self, name: str) -> tuple[Campaign, Judgement | None]:
        """Return a rollout and what follows; None when it is over."""
        held = campaign(self.store, name)
        running = held.state == RUNNING
        return held, judge(held, inventories(self.store)) if running else None

    def advance(self, name: str) -> tuple[Campaign, Judgement]:
        """Do what follows from the reports; WrongStateError when the rollout is over."""
        held = campaign(self.store, name)
        judgement = judge(held, inventories(self.store))
        after = follow(held, judgement, self.now())
        if judgement.verdict is Verdict.ADVANCE:
            after = self._assign(after, after.group)
        elif judgement.verdict is Verdict.STOP:
            after = self._take_back(after)
        else:
            self._keep(after)
        return after, judgement

    def advance_all(self) -> int:
        """Advance every rollout under way; returns how many changed."""
        running = [one for one in campaigns(self.store) if one.state == RUNNING]
        return sum(self.advance(one.plan.name)[0] != one for one in running)

    def stop(self, name: str, why: str) -> Campaign:
        """Stop at once: nobody else gets it; who has not installed it is assigned it no more.

        Raises:
            WrongStateError: the rollout is over.
        """
        return self._take_back(stopped(campaign(self.store, name), why))

    # --- inside -------------------------------------------------------------------------------

    def _assign(self, made: Campaign, group: int) -> Campaign:
        """Assign the package to a group. Kept first: a cut leaves a group assigned anew, no less.

        What a box was assigned before is kept before it is replaced.
        """
        boxes = made.plan.groups[group].boxes
        before = dict(made.before)
        for box in boxes:
            before.setdefault(box, self._paths(box))
        made = made.model_copy(update={"before": before})
        self._keep(made)
        for box in boxes:
            kept = [path for path in self._paths(box) if self._slot(path) != made.slot]
            paths = [*kept, made.plan.path]
            if sorted(paths) != sorted(self._paths(box)):
                name = made.plan.groups[group].name
                self.repository.assign(self._site(box), paths, self.now(), group=name)
        return made

    def _take_back(self, after: Campaign) -> Campaign:
        """Give back what was assigned before where the package does not serve."""
        self._keep(after)
        seen = inventories(self.store)
        for box in after.reached:
            here = seen[box].slots if box in seen else ()
            serves = any(s.package == after.package and s.serving for s in here)
            paths = after.before.get(box, ())
            if not serves and sorted(self._paths(box)) != sorted(paths):
                self.repository.assign(self._site(box), paths, self.now())
        return after

    def _keep(self, made: Campaign) -> None:
        with self.store.write() as db:
            db.execute(
                "INSERT INTO campaign (name, body) VALUES (?1, ?2)"
                " ON CONFLICT (name) DO UPDATE SET body = ?2",
                (made.plan.name, made.encode()),
            )

    def _paths(self, box: str) -> tuple[str, ...]:
        held = self.repository.assignment(self._site(box))
        return tuple(item.path for item in held.items) if held else ()

    def _slot(self, path: str) -> str:
        digest = self.repository.packages().get(path)
        return self.repository.manifest(path, digest).slot if digest else ""

    def _site(self, box: str) -> str:
        member = self.roster().members.get(box)
        if member is None:
            raise NotFoundError(f"no box {box} is on the roster")
        return site_of(member.key.raw.hex())


def summary(found: Sequence[Campaign]) -> list[dict[str, str | int]]:
    """Return rollouts as the status page and the command show them."""
    return [
        {
            "name": one.plan.name,
            "path": one.plan.path,
            "state": one.state,
            "group": one.plan.groups[one.group].name,
            "groups": len(one.plan.groups),
            "reached": len(one.reached),
            "why": one.why,
        }
        for one in found
    ]
