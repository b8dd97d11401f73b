"""The running appliance: everything `serve` starts, in order, and stops in reverse.

Nothing listens before the model passed its self-test and the state folder is ours. The event loop
lives in the main thread; receiver, workers, storage and the database have threads of their own.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidConfigError, InvalidInputError, SealedError, UnavailableError
from bedside_core.findings import Check
from bedside_core.incident import STOPPED, Cause
from bedside_core.slots import Pair, SlotState
from bedside_core.uses import Asker, Incident
from bedside_edge.api.app import create_app
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.mutual import CertificateActors
from bedside_edge.api.server import Server
from bedside_edge.api.services import Services
from bedside_edge.config import Config, Dicom, Http
from bedside_edge.dicom.part10 import head
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.dicom.scp import StorageScp
from bedside_edge.dicom.ul import AcceptorSettings, Caller
from bedside_edge.engine.selftest import prepare_cases
from bedside_edge.flashing import (
    Flashed,
    Uses,
    check_whole,
    chunk_store,
    flashing_service,
    load_flashed,
    member_name,
)
from bedside_edge.outgoing import Outgoing
from bedside_edge.ports import JobState
from bedside_edge.ports.evidence import BOX
from bedside_edge.services.access import LINK_MS
from bedside_edge.services.analysis import AnalysisService
from bedside_edge.services.drills import DrillWatch
from bedside_edge.services.evidence import EvidenceService
from bedside_edge.services.gate import Gate
from bedside_edge.services.grading import GradingService
from bedside_edge.services.hardware import HardwareService
from bedside_edge.services.holdings import Holdings
from bedside_edge.services.ingest import IngestService
from bedside_edge.services.keeping import sweep_permitted
from bedside_edge.services.loop import Loop
from bedside_edge.services.outputs import DeliveryState
from bedside_edge.services.overlap import OverlapService
from bedside_edge.services.permitted import PermittedReader
from bedside_edge.services.pictures import PictureService
from bedside_edge.services.results import ResultsService
from bedside_edge.services.rollout import RolloutService
from bedside_edge.services.routing import RoutingService
from bedside_edge.services.update_night import Hub, UpdateNight
from bedside_edge.services.watchdog import Watchdog
from bedside_edge.services.windows import under_profile
from bedside_edge.services.witnessing import Times, Witnessing
from bedside_edge.services.worker import Bell, Jobs, Worker
from bedside_edge.services.workitems import WorkitemPerformer, WorkitemService
from bedside_edge.services.worklist import WorklistService
from bedside_edge.state_folder import (
    access_service,
    consent_service,
    incident_service,
    keeping_service,
    open_folder,
    privacy_services,
    rights_service,
    sync_service,
    witness_service,
)
from bedside_edge.store.drills import Drills
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.key_files import protection_of
from bedside_edge.system.malloc_glibc import keep_freed_memory
from bedside_edge.system.notify_systemd import SystemdManager
from bedside_edge.system.picture_pillow import PillowPicture
from bedside_edge.system.random_os import OsRandom
from bedside_edge.system.tls_openssl import ServerTls
from bedside_edge.updating import Updating, hub_source, report_inventory, update_service
from bedside_edge.web.pages import error_page, pages_router
from bedside_edge.wiring import (
    Loaded,
    heat_watch,
    learning_service,
    load_accepted,
    load_grading,
    load_rules,
    load_sign_on,
    load_witnesses,
    model_service,
    policy_service,
    serving,
)

log = logging.getLogger(__name__)

_STOP_S = 5.0
RESTART_EXIT = 75  # sysexits.h, EX_TEMPFAIL: start it again
_HUB_STOP_S = 15.0  # an answer of the hub is awaited 10 s; nng is closed before the process ends
_ANSWER_S = 5.0  # for the HTTP loop to answer the self-check


class Box:
    """One appliance over a state folder. `start` once, `stop` once."""

    def __init__(self, config: Config, folder: Path) -> None:
        """Load the model, then open the state folder.

        Raises:
            BedsideError: whatever forbids serving, with its code.
        """
        self.config, self.folder = config, folder
        self.clock, self.random, self.metrics, self.bell = (
            SystemClock(),
            OsRandom(),
            Metrics(),
            Bell(),
        )
        chosen = load_flashed(config.model, folder)
        self.state = open_folder(config, folder, self.clock, self.random)
        self.keys_protection = protection_of(folder / "keys")
        if self.state.incidents.now() is Incident.SHUTDOWN:
            self.state.close()
            raise SealedError("the box was shut down; `bedside-edge unseal` at the box, by two")
        self.hardware = HardwareService(self.state.hardware, self.clock)
        accept = partial(load_accepted, hardware=self.hardware, state=folder)
        opened = chosen
        try:
            chosen = load_flashed(
                config.model,
                folder,
                lambda s: accept(s, ready=opened.loaded if s == opened.settings else None),
            )
        except BaseException:
            self.state.close()
            raise
        self.loaded = chosen.loaded
        self.hardware.serving = serving(self.loaded)
        self.heat = heat_watch(self.loaded)
        profile = self.loaded.profile.profile
        self.config = config = under_profile(config, profile, self.clock.now())
        self.access = access_service(config, self.state, self.clock, self.random)
        self.evidence = EvidenceService(
            self.state.evidence,
            self.clock,
            checkpoint_s=config.evidence.checkpoint_minutes * 60.0,
        )
        reader = PydicomReader()
        self.analysis = AnalysisService(self.loaded.model, reader, PillowPicture())
        flashed = Flashed(self.state)
        self.models = model_service(
            chosen.settings,
            self.analysis,
            load=accept,
            flashed=flashed.folders,
            offered=flashed.offered,
        )
        rules = load_rules(config.routing, self.loaded.package.manifest)
        self.routing = RoutingService(
            rules,
            self.models,
            lambda: RolloutService(self.models, self.state.deployments, self.clock),
        )
        self.policies = policy_service(config.policy, folder, self.state.policies, self.clock)
        self.flashing = flashing_service(
            config,
            self.state,
            self.clock,
            Uses(models=self.models, rollout=self.routing.rollout, policies=self.policies),
            lambda: self.policies,
            profile=self.loaded.profile.profile.id,
        )
        self.flashing.start([why.code for why in chosen.failed])
        self.updating = Updating(
            update_service(
                config,
                self.state,
                self.clock,
                chunk_store(config, folder),
                self.flashing.running,
            ),
            config,
            self.state,
        )
        self.gate = Gate(
            self.policies.policy, self.state.governance, self.clock, self.state.evidence.append
        )
        self.incidents = incident_service(
            config, self.state, self.clock, changed=self._state_changed
        )
        self.gate.incident = self.state.incidents.now
        self.witness = witness_service(self.state, self.clock, self.random, self._found)
        witnesses, enough = load_witnesses(config.evidence)
        self.witnessing = Witnessing(
            self.state.witnessed,
            witnesses,
            self.clock,
            policy=enough,
            times=Times(hour=config.evidence.witness_hour, alarm_h=config.evidence.witness_alarm_h),
            incident=self._found,
            seen=lambda at: self.privacy.budget.witnessed(at),
        )
        self.consents = consent_service(config, self.state, self.clock, self.bell.ring)
        self.gate.standing = self.consents.standing
        self.policies.bind(self.gate)
        self.grading = GradingService(
            load_grading(config.policy), self.state.governance, self.clock
        )
        self.ingest = IngestService(
            objects=self.state.objects,
            studies=self.state.studies,
            queue=self.state.jobs,
            reader=reader,
            clock=self.clock,
            wrap=head,
            wake=self.bell.ring,
            wake_soon=self.bell.ring_soon,
            max_object_bytes=config.dicom.max_object_bytes,
            grade=self.grading.grade,
            permit=self.gate.receive,
        )
        self.sign_on = load_sign_on(
            config.oidc, self.state.oidc, self.access, self.clock, self.random
        )
        self.http_tls, self.dicom_tls = _server_tls(config.http), _server_tls(config.dicom)
        self.scp = StorageScp(
            _acceptor_settings(
                config, self.loaded, self.dicom_tls.context if self.dicom_tls else None
            ),
            self.ingest,
            self.clock,
            observe=partial(self.metrics.received, "dimse"),
        )
        self.outgoing = Outgoing(
            config,
            self.state,
            ingest=self.ingest,
            reader=reader,
            paint=self.analysis.overlay_array,
            clock=self.clock,
            random=self.random,
            bell=self.bell,
            count=self.metrics.delivery,
            permit=self.gate.deliver,
        )
        self.pictures = PictureService(
            self.state.jobs, self.state.studies, self.state.objects, reader, PillowPicture()
        )
        self.worklist = WorklistService(self.state.work_rows, gone=self.pictures.forget)
        self.holdings = Holdings(self.state.holdings, self.state.objects, reader)
        self.workitems = WorkitemService(
            self.state.workitems, self.clock, self.random, self.bell.ring
        )
        self.keeping = keeping_service(
            config, self.state, self.clock, partial(sweep_permitted, self.gate)
        )
        self.rights = rights_service(
            config,
            self.state,
            self.clock,
            self.consents,
            reviews=self.outgoing.reviews.reviews,
            erase=self._erase_subject,
        )
        self._desk = Loop(self.rights, self.bell)
        self.privacy = privacy_services(
            config, folder, self.state, self.gate, self.grading.grading.rho
        )
        self._nights = Loop(self.privacy.nights, self.bell)
        self.learning = learning_service(
            config.model,
            self.state,
            lambda: self.gate,
            lambda: self.models,
            self.clock,
            self.random,
        )
        self.sync = sync_service(
            config, self.state, self.gate, self.learning.materials, self.clock, self.random
        )
        self._syncing = Loop(self.sync, Bell())
        self._sync_thread = threading.Thread(target=self._syncing.run, name="sync", daemon=True)
        self._flasher = Loop(self.flashing, self.bell)
        self.update_night = UpdateNight(
            self.updating.service,
            self.flashing,
            Hub(
                lend=lambda: hub_source(self.state),
                report=partial(report_inventory, self.state),
                name=lambda: member_name(self.state),
            ),
            self.clock,
            check=partial(check_whole, self.state),
            alarms=lambda: len(self.state.studies.alarms()),
            window=(config.sync.window_start_minute, config.sync.window_minutes),
            restart=self._restart,
            allowed=lambda: self.state.incidents.now() not in STOPPED,
            enabled=config.sync.enabled,
        )
        self._updater = Loop(self.update_night, Bell())
        self._update_thread = threading.Thread(
            target=self._updater.run, name="update-night", daemon=True
        )
        self.restart_wanted = False
        drills = Drills(self.state.database, self.state.keys, self.state.record, folder)
        self._drills = Loop(DrillWatch(drills, self.clock, config.backup.drill_days), Bell())
        self.manager = SystemdManager()
        self._watch = Loop(Watchdog(self.manager, Health(self).self_check), Bell())
        self._sweeper = Loop(self.keeping.retention, self.bell)
        self._clocks = Loop(self.incidents, self.bell)
        self._performer = Loop(self._workitem_performer(), self.bell)
        self._performing: list[threading.Thread] = []
        most = self.loaded.profile.profile.limits.max_inflight
        self.workers = [self._worker() for _ in range(min(most, self.loaded.opened.plan.streams))]
        self._threads: list[threading.Thread] = []
        self.http_loop: asyncio.AbstractEventLoop | None = None

    @property
    def services(self) -> Services:
        """What the HTTP service stands on."""
        state = self.state
        results = ResultsService(state.jobs, state.studies, state.objects, self.analysis)
        return Services(
            ingest=self.ingest,
            jobs=Jobs(state.jobs, self.clock, self.bell),
            analysis=self.analysis,
            models=self.models,
            routing=self.routing,
            rollout=self.routing.rollout,
            instances=state.studies.instances,
            overlay=results.overlay,
            outgoing=self.outgoing,
            holdings=self.holdings,
            workitems=self.workitems,
            worklist=self.worklist,
            pictures=self.pictures,
            alarms=state.studies.alarms,
            requests=state.requests,
            changes=state.changes,
            access=self.access,
            gate=self.gate,
            keeping=self.keeping,
            policies=self.policies,
            grading=self.grading,
            evidence=self.evidence,
            witness=self.witness,
            witnessing=self.witnessing,
            incidents=self.incidents,
            rights=self.rights,
            health=Health(self),
            clock=self.clock,
            random=self.random,
            privacy=self.privacy,
            learning=self.learning,
            overlap=OverlapService(
                state.overlaps,
                state.learning,
                lambda: self.gate,
                state.device,
                self.clock,
                self.random,
            ),
            sync=self.sync,
            hardware=self.hardware,
            flashing=self.flashing,
            updates=self.updating,
            ready_packages=self.updating.service.ready,
            sign_on=self.sign_on,
            settings=self.config,
        )

    def start(self) -> int:
        """Start workers and the DICOM receiver; return its port."""
        kept = {"keys_protection": str(self.keys_protection)}
        self.evidence.start(self.loaded.model.refs() | kept)
        self.witnessing.start()
        for number, worker in enumerate(self.workers):
            thread = threading.Thread(target=worker.run, name=f"worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        self.outgoing.start()
        performing = threading.Thread(target=self._performer.run, name="workitems", daemon=True)
        performing.start()
        self._performing.append(performing)
        grading = threading.Thread(target=self.grading.run, name="grading", daemon=True)
        grading.start()
        self._performing.append(grading)
        desk = threading.Thread(target=self._desk.run, name="requests", daemon=True)
        desk.start()
        self._performing.append(desk)
        ticking = threading.Thread(target=self._clocks.run, name="incidents", daemon=True)
        ticking.start()
        self._performing.append(ticking)
        sweeping = threading.Thread(target=self._sweeper.run, name="retention", daemon=True)
        sweeping.start()
        self._performing.append(sweeping)
        nights = threading.Thread(target=self._nights.run, name="nights", daemon=True)
        nights.start()
        self._performing.append(nights)
        self._sync_thread.start()
        drilling = threading.Thread(target=self._drills.run, name="drills", daemon=True)
        drilling.start()
        self._performing.append(drilling)
        self._update_thread.start()
        flashing = threading.Thread(target=self._flasher.run, name="flashing", daemon=True)
        flashing.start()
        self._performing.append(flashing)
        return self.scp.start()

    def serving(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say that requests are answered now; from here on the self-check runs if anybody waits."""
        self.http_loop = loop
        self.manager.ready("serving")
        if self.manager.watchdog_s > 0:
            watching = threading.Thread(target=self._watch.run, name="self-check", daemon=True)
            watching.start()
            self._performing.append(watching)

    def stop(self) -> None:
        """Stop taking in, finish what is in hand, close the state folder."""
        self.manager.stopping()
        self._watch.stop()
        self.scp.stop(_STOP_S)
        for worker in self.workers:
            worker.stop()
        for thread in self._threads:
            thread.join(_STOP_S)
        self.outgoing.stop()
        self._performer.stop()
        self._sweeper.stop()
        self._nights.stop()
        self.sync.stop()
        self._syncing.stop()
        if self._sync_thread.ident is not None:
            self._sync_thread.join(_HUB_STOP_S)
        self._drills.stop()
        self.updating.stop()
        self.update_night.stop()
        self._updater.stop()
        self.flashing.stop()
        if self._update_thread.ident is not None:  # nng must be closed before the process ends
            self._update_thread.join(_HUB_STOP_S)
        self._flasher.stop()
        self._clocks.stop()
        self._desk.stop()
        self.grading.stop()
        for thread in self._performing:
            thread.join(_STOP_S)
        self.learning.close()
        self.witnessing.stop()
        self.evidence.stop()
        self.state.close()
        self.models.close()

    def _erase_subject(self, gate: Gate, asker: Asker, subject_id: str) -> str:
        plan = self.keeping.erasure.plan_subject(subject_id)
        return self.keeping.erase(gate, asker, plan, reason="request").erasure_id

    def _restart(self) -> None:
        """Let a new start try, or use, what was flashed, if whoever supervises the box wants it."""
        if self.config.update.restart == "exit" and not self.restart_wanted:
            self.restart_wanted = True
            log.info("restart for an update")
            os.kill(os.getpid(), signal.SIGTERM)

    def _found(self, reason: str) -> str:
        """Open an incident for what the box itself found in a log."""
        return self.incidents.open(BOX, cause=Cause.TAMPERING, facts={"causes": reason})

    def _state_changed(self, state: Incident) -> None:
        """Wake whoever waits; a box that is shut down ends its process in order."""
        self.bell.ring()
        if state is Incident.SHUTDOWN:
            os.kill(os.getpid(), signal.SIGTERM)

    def reload_certificates(self) -> None:
        """Read certificates and keys again; what cannot be used leaves the old ones in force."""
        for tls in (self.http_tls, self.dicom_tls):
            if tls is None:
                continue
            try:
                tls.reload()
            except InvalidConfigError as error:
                log.error("certificate not reloaded", extra={"code": error.code})  # noqa: TRY400
            else:
                log.info("certificate reloaded")

    def _workitem_performer(self) -> WorkitemPerformer:
        named = [code.partition("^") for code in self.config.workitems.codes]
        return WorkitemPerformer(
            store=self.state.workitems,
            holdings=self.holdings,
            queue=self.state.jobs,
            publisher=self.outgoing.publisher,
            clock=self.clock,
            random=self.random,
            wake=self.bell.ring,
            codes=[(value, scheme) for value, _, scheme in named],
            station=self.config.dicom.ae_title,
        )

    def _worker(self) -> Worker:
        return Worker(
            queue=self.state.jobs,
            objects=self.state.objects,
            ingest=self.ingest,
            analysis=PermittedReader(self.routing, self.gate),
            clock=self.clock,
            bell=self.bell,
            job_timeout_s=min(
                self.config.jobs.timeout_s, self.loaded.profile.profile.limits.job_timeout_s
            ),
            observe=self.metrics.job_ended,
            resting=self.heat.resting,
        )


class Health:
    """Readiness and gauges, looked up when asked."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._golden: NDArray[np.float32] | None = None

    def checks(self) -> Mapping[str, Check]:
        """Return every readiness check by name."""
        found = [self._model(), self._disk(), self._queue(), self._dicom(), self._keys()]
        if self._box.heat.watched:
            passed, reason = self._box.heat.told()
            found.append(Check(name="heat", passed=passed, reason=reason))
        return {check.name: check for check in found}

    def self_check(self) -> Mapping[str, bool]:
        """Look at everything a restart could mend, the engine's answer included."""
        return {
            "queue": self._queue().passed,
            "dicom": self._dicom().passed,
            "http": self._http_answers(),
            "model": self._reads_a_golden_case(),
        }

    def gauges(self) -> Mapping[str, float]:
        """Return the figures for /metrics."""
        box = self._box
        usage = shutil.disk_usage(box.folder)
        counts = box.state.jobs.counts()
        ways = box.state.outputs.delivery_counts()
        return {
            "disk_used_ratio": 1.0 - usage.free / usage.total,
            "disk_free_bytes": float(usage.free),
            "queue_depth": float(counts.get(JobState.READY, 0)),
            "associations": float(box.scp.acceptor.associations),
            "alarms": float(len(box.state.studies.alarms())),
            "resident_bytes": float(_resident_bytes()),
            "deliveries_waiting": float(_ways(ways, DeliveryState.WAITING)),
            "updates_waiting": float(len(box.flashing.waiting)),
            "updates_bad": float(_bad_slots(box.flashing.pairs())),
            "deliveries_dead": float(_ways(ways, DeliveryState.DEAD)),
            **{f"jobs.{state}": float(count) for state, count in counts.items()},
        }

    def _model(self) -> Check:
        loaded = self._box.loaded
        info = loaded.model.engine.info
        reason = f"{loaded.package.label} on {info.engine} {info.precision}, self-test passed"
        return Check(name="model", passed=True, reason=reason)

    def _disk(self) -> Check:
        usage, limits = shutil.disk_usage(self._box.folder), self._box.config.disk
        used = 1.0 - usage.free / usage.total
        passed = used <= limits.high_watermark and usage.free >= limits.min_free_bytes
        reason = f"{used:.0%} used, {usage.free >> 20} MiB free"
        return Check(name="disk", passed=passed, reason=reason)

    def _queue(self) -> Check:
        box = self._box
        alive = sum(thread.is_alive() for thread in box._threads)
        reason = f"{alive} of {len(box.workers)} workers running"
        try:
            box.state.database.write(lambda _: None)
        except UnavailableError as failed:
            return Check(name="queue", passed=False, reason=f"not writable: {failed.code}")
        passed = alive == len(box.workers)
        return Check(name="queue", passed=passed, reason=reason)

    def _dicom(self) -> Check:
        acceptor = self._box.scp.acceptor
        reason = "listening" if acceptor.listening else "not listening"
        return Check(name="dicom", passed=acceptor.listening, reason=reason)

    def _http_answers(self) -> bool:
        loop, answered = self._box.http_loop, threading.Event()
        if loop is None:
            return False
        loop.call_soon_threadsafe(answered.set)
        return answered.wait(_ANSWER_S)

    def _reads_a_golden_case(self) -> bool:
        """Run the package's first golden case again: the logit of the start, within tolerance."""
        loaded = self._box.loaded
        if self._golden is None:
            self._golden = prepare_cases(loaded.package)[0][1].tensor
        known, allowed = loaded.opened.test.logits[0], loaded.opened.test.allowed_logit
        return abs(loaded.model.engine.run(self._golden).logit - known) <= allowed

    def _keys(self) -> Check:
        kept = self._box.keys_protection
        return Check(name="keys", passed=True, reason=f"keys are kept by {kept}, see docs/keys.md")


def run_box(config: Config, folder: Path, ready_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        config: the settings.
        folder: the state folder.
        ready_file: where to write the bound addresses, as JSON, once ready.

    Raises:
        BedsideError: the box refuses to serve, or an address cannot be bound.
    """
    keep_freed_memory()
    box = Box(config, folder)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(box, ready_file))
    finally:
        box.stop()
    log.info("box stopped")
    if box.restart_wanted:
        sys.exit(RESTART_EXIT)


async def _serve(box: Box, ready_file: Path | None) -> None:
    listener = _listen(box.config.http.host, box.config.http.port)
    most = box.loaded.opened.choice.queue_depth
    http = box.config.http.model_copy(
        update={
            "max_waiting": min(box.config.http.max_waiting, most),
            "names": [*box.config.http.names, box.config.http.host],
        }
    )
    app = create_app(
        box.services,
        http,
        inference_workers=box.loaded.opened.plan.streams,
        metrics=box.metrics,
        pages=pages_router,
        error_page=error_page,
        actor_from_scope=CertificateActors(box.config.clients) if box.config.clients else None,
    )
    addresses: dict[str, object] = {}
    tls = box.http_tls.context if box.http_tls else None

    def started() -> None:
        _announce(addresses, ready_file)
        box.serving(asyncio.get_running_loop())

    server = Server(app, http, on_started=started, tls=tls)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.leave)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, box.reload_certificates)
    dicom_port = box.start()
    addresses |= {
        "http": _address(box.config.http, listener.getsockname()[1]),
        "dicom": {
            "host": box.config.dicom.host,
            "port": dicom_port,
            "ae_title": box.config.dicom.ae_title,
        },
        "pid": os.getpid(),
    }
    if (link := box.access.ensure_setup()) is not None:
        addresses["setup"] = f"{addresses['http']}/setup?link={link.secret}"
        _say_setup(str(addresses["setup"]))
    log.info("box ready", extra={"port": listener.getsockname()[1]})
    await server.serve(sockets=[listener])


def _address(settings: Http, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls else 'http'}://{host}:{port}"


def _server_tls(settings: Http | Dicom) -> ServerTls | None:
    if not settings.tls:
        return None
    return ServerTls(
        settings.certificate_file,
        settings.key_file,
        settings.client_auth,
        settings.client_ca_file,
    )


def _announce(addresses: Mapping[str, object], ready_file: Path | None) -> None:
    text = json.dumps(addresses, sort_keys=True)
    if ready_file is not None:
        partial = ready_file.with_name(ready_file.name + ".part")
        try:
            partial.unlink(missing_ok=True)
            partial.touch(mode=0o600)  # it may hold the set-up link
            partial.write_text(text)
            partial.replace(ready_file)
        except OSError as cause:
            why = cause.strerror
            raise InvalidInputError(f"the ready file cannot be written: {why}") from cause
    print(text, flush=True)  # noqa: T201  the one line on standard output: where to reach the box


def _say_setup(link: str) -> None:
    """Tell whoever started the box, once, how to become its administrator."""
    hours = LINK_MS // 3_600_000
    words = f"nobody has set this box up yet; within {hours} hours open\n  {link}"
    print(words, file=sys.stderr, flush=True)  # noqa: T201  a link is no log line


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as cause:
        listener.close()
        raise UnavailableError(f"HTTP port {port} cannot be bound: {cause.strerror}") from cause
    listener.set_inheritable(True)
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # other systems than Linux
        return None
    return uvloop.new_event_loop


def _acceptor_settings(
    config: Config, loaded: Loaded, tls: ssl.SSLContext | None
) -> AcceptorSettings:
    """The stricter of what the settings and the hardware profile allow."""
    dicom, limits = config.dicom, loaded.profile.profile.dicom
    return AcceptorSettings(
        host=dicom.host,
        port=dicom.port,
        ae_title=dicom.ae_title,
        max_associations=min(dicom.max_associations, limits.max_associations),
        max_pdu_bytes=min(dicom.max_pdu_bytes, limits.max_pdu_bytes),
        idle_timeout_s=min(dicom.idle_timeout_s, limits.network_timeout_s),
        artim_timeout_s=limits.acse_timeout_s,
        max_object_bytes=dicom.max_object_bytes,
        allowed_calling_ae=frozenset(dicom.allowed_calling_ae),
        callers=tuple(
            Caller(peer.ae_title, tuple(ip_network(one) for one in peer.addresses))
            for peer in dicom.peers.values()
        ),
        tls=tls,
    )


def _ways(counts: Mapping[tuple[str, DeliveryState], int], state: DeliveryState) -> int:
    return sum(count for (_, found), count in counts.items() if found is state)


def _bad_slots(pairs: Sequence[Pair]) -> int:
    return sum(slot.state is SlotState.BAD for pair in pairs for slot in (pair.a, pair.b))


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
