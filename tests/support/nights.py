"""Boxes with real state folders in one consortium, a hub in the same process, killed at will."""

import hashlib
import os
from contextlib import contextmanager
from fractions import Fraction

import numpy as np

from bedside_core.errors import BedsideError, HubRefusedError, HubUnavailableError
from bedside_edge.config import Sync
from bedside_edge.ports.sync import Agreement, Member
from bedside_edge.services.gate import Gate
from bedside_edge.services.sync import SyncService
from bedside_edge.store.state import open_state
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document
from bedside_edge.system.sync_keys import MemberKeys
from bedside_sync.hub import upcoming
from bedside_sync.hub.server import HubServer
from bedside_sync.hub.service import HubKeys, HubService
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.joining import Welcome
from bedside_sync.secagg.machines import Hub
from bedside_sync.secagg.manifest import Purpose, local_sigma2
from bedside_sync.system.random_os import random_long_words
from bedside_sync.task_code import task_code
from bedside_sync.wire import read_message, write_message
from support.consortium import NOW, Consortium, Round, raw
from support.fake_clock import FakeClock

LENGTH, EACH = 40, 64
SETTINGS = b'{"cells":40}'


class KilledError(BaseException):
    """The process was killed."""


class Counting:
    """Every patient adds 64 to one word; `broken` stands in for a task with a fault."""

    def __init__(self):
        self.subjects, self.broken = [], None

    def patients(self, manifest, settings):
        assert settings == SETTINGS
        if self.broken:
            raise self.broken
        return list(self.subjects)

    def vector(self, manifest, settings, patients):
        vector = np.zeros(LENGTH, np.int64)
        vector[0] = EACH * len(patients)
        return vector


class Line:
    """Carries messages as bytes; `away` is a hub that nobody reaches."""

    def __init__(self, world, peer):
        self.world, self.peer = world, peer

    def ask(self, request):
        if self.world.away:
            raise HubUnavailableError("the hub cannot be reached")
        asked = read_message(write_message(request))
        try:
            return read_message(write_message(self.world.server.handle(self.peer, asked)))
        except BedsideError as refused:
            raise HubRefusedError(refused.code, str(refused)) from refused


class House:
    """One hospital's box; `open` again is a restart."""

    def __init__(self, world, name, patients):
        self.world, self.name, self.counting = world, name, Counting()
        self.other = Counting()
        self.state, self.die_in, self.after = None, 0, True
        self.settings = Sync(
            purposes=["collect"], least_hospitals=3, jitter_minutes=0, window_minutes=1440
        )
        self.open()
        self.join()
        self.counting.subjects = [self.patient(n) for n in range(patients)]

    def open(self):
        self.close()
        folder = self.world.folder / self.name
        self.state = open_state(
            folder / "state",
            self.world.clock,
            os.urandom,
            open_box_keys,
            privacy_counter=folder / "counter",
        )
        self._watch(self.state.database)
        gate = Gate(
            CedarPolicy(shipped_document()),
            self.state.governance,
            self.world.clock,
            self.state.evidence.append,
            incident=self.state.incidents.now,
        )
        self.sync = SyncService(
            self.state.sync,
            {"census": self.counting, "other": self.other},
            gate,
            self.world.clock,
            keys=MemberKeys(os.urandom),
            wrapping=self.state.keys,
            random=os.urandom,
            words=random_long_words,
            dial=self._dial,
            settings=self.settings,
            code=task_code(),
        )
        return self

    def close(self):
        if self.state is not None:
            self.state.close()
            self.state = None

    def kill(self):
        """End without closing in order; what the kernel has is what a kill leaves."""
        self.die_in = 0
        self.open()

    def join(self):
        among = self.world.among
        welcome = Welcome(
            box=self.name,
            root=among.root,
            hub_key=raw(among.hub).hex(),
            url="tls+tcp://hub.test:1",
            server_name="hub.test",
            authority="none",
            certificate="none",
        )
        member = Member(
            box=self.name,
            organisation=among.roster.members[self.name].organisation,
            helper=True,
            identity=among.keys[self.name].private_bytes_raw(),
            transport=b"none",
            welcome=welcome.encode(),
        )
        self.state.sync.keep_member(member, "system:console", "joined")
        now = self.world.clock.now()
        self.agreement = Agreement(
            agreement_id="lungs",
            title="Lungs",
            purposes=("collect",),
            same_region=True,
            document=bytes(32),
            starts=now,
            ends=now + 10**12,
            actor="system:console",
            at=now,
        )
        self.sync.agree(self.agreement)

    def patient(self, number, identified=True):
        subjects, at = self.state.subjects, self.world.clock.now()
        lookup = f"{self.name}-{number}".ljust(32, "0")
        return self.state.database.write(
            lambda c: subjects.enter(c, lookup, at, identified=identified)
        )

    def events(self):
        store = self.state.sync
        return [one for night in store.nights() for one in store.events(night)]

    def box_state(self, name):
        return {one.round: one.state for one in self.sync.status().rounds}.get(name, "idle")

    @contextmanager
    def _dial(self, welcome, transport):
        if self.world.away:
            raise HubUnavailableError("the hub cannot be reached")
        yield Line(self.world, self.name)

    def _watch(self, database):
        write = database.write

        def counted(fn):
            self.die_in -= 1
            if self.die_in == 0 and not self.after:
                raise KilledError
            answer = write(fn)
            if self.die_in == 0 and self.after:
                raise KilledError
            return answer

        database.write = counted


class World:
    """Four helpers, as many more boxes as wanted, and their hub."""

    def __init__(self, folder, boxes=4, patients=5):
        self.folder, self.away = folder, False
        self.clock = FakeClock(NOW * 1000)
        self.among = Consortium(sites=boxes)
        self.store = HubStore(folder / "hub")
        keys = HubKeys(sign=self.among.hub.sign, now=lambda: self.clock.now() // 1000)
        self.hub = HubService(self.store, self.among.root, keys)
        self.server = HubServer(self.hub, lambda: self.clock.now() // 1000)
        for signed in self.among.entries:
            self.hub.append(signed)
        assert self.store.keep_settings(SETTINGS)
        self.houses = {name: House(self, name, patients) for name in self.among.roster.members}

    def close(self):
        for house in self.houses.values():
            house.close()
        self.store.close()

    def visit(self, *names, times=1):
        for _ in range(times):
            for name in names or self.houses:
                self.houses[name].sync.visit()

    def open_round(self, name, **changes):
        """Have the helpers hand in their keys, then open the round."""
        helpers = list(self.houses)[:4]
        now = self.clock.now() // 1000
        upcoming.announce(self.store, self.hub.roster, name, helpers, now)
        self.visit(*helpers)
        made = Round(self.among, length=LENGTH)
        changes = {"purpose": Purpose.COLLECT} | changes
        given = {
            "round": name,
            "code": task_code().hex(),
            "settings": hashlib.sha256(SETTINGS).hexdigest(),
            "sensitivity2": EACH * EACH,
            "largest": EACH,
            "sigma2": local_sigma2(Fraction(2), EACH * EACH, 3, 0),
            "helpers": upcoming.keys(self.store, name, now),
            "opens": now,
            "closes": now + 3600,
            "expires": now + 7200,
            "audit_until": now + 86_400,
        }
        manifest = made.manifest_of(**(given | changes))
        self.hub.announce(made.sign(manifest))
        return manifest

    def close_round(self, *names):
        """Let the round's time pass and the boxes visit until it is published."""
        self.clock.advance(3_601_000)
        name = self.store.rounds()[-1][0]
        while self.store.state(name) is not Hub.PUBLISHED:
            self.hub.go_on_all()
            self.visit(*names)
        self.visit(*names)
