"""Everything that leaves the box or is fetched into it, built from the settings.

One thread publishes results, one makes signed reports, and every destination has a thread of its
own. Without destinations no result is published; objects are made when somebody asks for them.
"""

import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from bedside_edge.config import Config
from bedside_edge.config import Destination as DestinationSettings
from bedside_edge.dicom.pull import GetScu, MoveScu
from bedside_edge.dicom.scu import Peer, TlsFiles
from bedside_edge.dicom.send import StoreScu
from bedside_edge.dicom.write import DicomWriter
from bedside_edge.ports import Clock, PixelReader, RandomBytes
from bedside_edge.services.delivery import Deliveries, DeliveryWorker
from bedside_edge.services.ingest import IngestService
from bedside_edge.services.loop import Loop, Steps
from bedside_edge.services.outputs import Archive, Destination, Kind, SendRules
from bedside_edge.services.publish import Paint, PublishService
from bedside_edge.services.pull import PullService
from bedside_edge.services.review import ReviewService
from bedside_edge.services.worker import Bell
from bedside_edge.store.state import State

if TYPE_CHECKING:
    from bedside_edge.dicom.web import WebPeer

_STOP_S = 5.0


class Outgoing:
    """Publisher, deliveries and pulls of a box. `start` once, `stop` once."""

    def __init__(
        self,
        config: Config,
        state: State,
        *,
        ingest: IngestService,
        reader: PixelReader,
        paint: Paint,
        clock: Clock,
        random: RandomBytes,
        bell: Bell,
        count: Callable[[str, str], None],
        permit: Callable[[str], None] = lambda _study_id: None,
    ) -> None:
        """Build every destination; nothing is called yet."""
        destinations = {
            name: _destination(name, settings, config)
            for name, settings in config.destinations.items()
            if settings.send
        }
        state.outputs.publish_results(wanted=bool(destinations))
        self._bell = bell
        self.publisher = PublishService(
            queue=state.jobs,
            studies=state.studies,
            objects=state.objects,
            outputs=state.outputs,
            writer=_writer(state, random),
            paint=paint,
            clock=clock,
            destinations={name: made.objects for name, made in destinations.items()},
            wake=bell.ring,
        )
        self.reviews = ReviewService(
            queue=state.jobs,
            reviews=state.reviews,
            publisher=self.publisher,
            clock=clock,
            wake=bell.ring,
        )
        rules = _rules(config)
        workers = {
            name: DeliveryWorker(
                made,
                outputs=state.outputs,
                objects=state.objects,
                reader=reader,
                clock=clock,
                rules=rules,
                count=count,
                permit=permit,
            )
            for name, made in destinations.items()
        }
        self.deliveries = Deliveries(state.outputs, workers, clock, bell)
        archives = {
            name: _archive(name, settings, config)
            for name, settings in config.destinations.items()
            if settings.fetch
        }
        self.pulls = PullService(ingest, archives)
        steps: dict[str, Steps] = {f"send-{name}": worker for name, worker in workers.items()}
        steps["reviews"] = self.reviews  # a signed report is made even if nobody is to get it
        if workers:
            steps["publisher"] = self.publisher
        self._loops = [(name, Loop(step, bell)) for name, step in steps.items()]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        for name, loop in self._loops:
            thread = threading.Thread(target=loop.run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Finish what is in hand; what is not delivered waits for the next start."""
        for _, loop in self._loops:
            loop.stop()
        for thread in self._threads:
            thread.join(_STOP_S)


def _writer(state: State, random: RandomBytes) -> DicomWriter:
    """The box writes as one device for its whole life: its UID comes from the box key."""
    device = int(state.keys.lookup("device", b"uid"), 16)
    serial = state.keys.lookup("device", b"serial")[:12]
    return DicomWriter(f"2.25.{device}", serial, version("bedside"), random)


def _rules(config: Config) -> SendRules:
    delivery = config.delivery
    return SendRules(
        first_wait_ms=int(delivery.first_wait_s * 1000),
        longest_wait_ms=int(delivery.longest_wait_s * 1000),
        give_up_ms=int(delivery.give_up_h * 3_600_000),
    )


def destination(name: str, config: Config) -> Destination:
    """Return one destination of the settings, to ask it something; KeyError if there is none."""
    return _destination(name, config.destinations[name], config)


def _destination(name: str, settings: DestinationSettings, config: Config) -> Destination:
    objects = frozenset(Kind(kind) for kind in settings.objects)
    if settings.kind == "dicomweb":
        from bedside_edge.dicom.web import StowClient  # the HTTP client: only when it is needed

        return StowClient(name, _web_peer(settings), objects)
    return StoreScu(name, _peer(settings, config), objects)


def _archive(name: str, settings: DestinationSettings, config: Config) -> Archive:
    if settings.fetch == "wado":
        from bedside_edge.dicom.web import WebArchive

        return WebArchive(name, _web_peer(settings), config.dicom.max_object_bytes)
    peer = _peer(settings, config)
    if settings.fetch == "c-move":
        return MoveScu(name, peer, config.dicom.ae_title)
    return GetScu(name, peer)


def _peer(settings: DestinationSettings, config: Config) -> Peer:
    return Peer(
        host=settings.host,
        port=settings.port,
        called_ae=settings.ae_title,
        calling_ae=config.dicom.ae_title,
        timeout_s=settings.timeout_s,
        tls=_tls(settings) if settings.tls else None,
    )


def _web_peer(settings: DestinationSettings) -> "WebPeer":
    from bedside_edge.dicom.web import WebPeer

    return WebPeer(
        url=settings.url,
        timeout_s=settings.timeout_s,
        tls=_tls(settings) if settings.url.startswith("https:") else None,
        authorization_file=settings.authorization_file,
    )


def _tls(settings: DestinationSettings) -> TlsFiles:
    return TlsFiles(
        ca_file=settings.ca_file,
        certificate_file=settings.certificate_file,
        key_file=settings.key_file,
    )
