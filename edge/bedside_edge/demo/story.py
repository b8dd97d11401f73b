"""Sends every delivery to the box and writes down what came of it, as values for the report."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bedside_edge.demo.client import BoxClient
from bedside_edge.demo.problem import DemoError
from bedside_edge.demo.samples import ANALYSED, Delivery, Route, Sample
from bedside_edge.demo.senders import send_c_store, send_stow
from bedside_edge.demo.service import Addresses

Json = dict[str, Any]
Say = Callable[[str], None]

NOT_TAKEN_IN = "not_taken_in"


class Story:
    """One box, studies sent one after the other.

    Args:
        say: shows one line of progress.
    """

    def __init__(self, addresses: Addresses, client: BoxClient, say: Say) -> None:
        self._addresses, self._client, self._say = addresses, client, say
        self.overlays: dict[str, bytes] = {}

    def deliver(self, delivery: Delivery) -> Json:
        """Send one study, wait for its job, return the row of the report."""
        known = {job["study"] for job in self._client.jobs()}
        started = time.perf_counter()
        row = _row(delivery)
        if delivery.route is Route.HTTP:
            return row | self._analyze(delivery, started)
        answers = self._send(delivery)
        sent = time.perf_counter()
        row["send_s"] = sent - started
        if not any(_accepted(answer) for answer in answers):
            return row | _not_taken_in(
                delivery, {"code": "refused-at-the-door", "detail": answers[0]}
            )
        job = self._client.new_job(known)
        if delivery.route is Route.STOW:
            self._client.complete(job["id"])
        job = self._client.ended(job["study"])
        row["result_s"] = time.perf_counter() - sent
        if job["result"] is None:
            raise DemoError(f"{delivery.title}: the job ended {job['state']}, {job['reason']}")
        return row | self._outcome(delivery, answers, job)

    def repeat(self, delivery: Delivery, first: Json) -> Json:
        """Send a study again; return what the box made of it: nothing new, if all is well."""
        jobs, received = self._client.jobs(), self._client.received()
        started = time.perf_counter()
        answers = self._send(delivery)
        taken = time.perf_counter() - started
        after = self._client.received()
        outcomes = {
            outcome: count - received.get((way, outcome), 0)
            for (way, outcome), count in after.items()
            if way == "stow" and count > received.get((way, outcome), 0)
        }
        return {
            "title": delivery.title,
            "route": str(delivery.route),
            "answers": answers,
            "outcomes": outcomes,
            "send_s": taken,
            "jobs_unchanged": _without_age(jobs) == _without_age(self._client.jobs()),
            "result_unchanged": self._client.result(first["result"])["result"] == first["document"],
        }

    def _send(self, delivery: Delivery) -> list[str]:
        paths = [sample.path for sample in delivery.samples]
        self._say(f"{delivery.route}: {delivery.title}, {_count(paths)}")
        if delivery.route is Route.STOW:
            return send_stow(self._client.http, paths)
        return send_c_store(self._addresses, paths)

    def _analyze(self, delivery: Delivery, started: float) -> Json:
        """Send what the box should turn away, and keep its problem document."""
        self._say(f"{delivery.route}: {delivery.title}")
        reply = self._client.analyze(delivery.samples[0].path)
        row: Json = {"send_s": time.perf_counter() - started, "result_s": None}
        if reply.headers.get("content-type") != "application/problem+json":
            raise DemoError(f"{delivery.title}: answered {reply.status_code}, not refused")
        problem = reply.json()
        reason = {"code": problem["type"].rpartition(":")[2], "detail": problem["detail"]}
        answers = [f"HTTP {reply.status_code}"]
        return row | _not_taken_in(delivery, reason) | {"answers": answers}

    def _outcome(self, delivery: Delivery, answers: Sequence[str], job: Json) -> Json:
        stored = self._client.result(job["result"])
        document = stored["result"]
        if len(document["images"]) != len(delivery.samples):
            raise DemoError(f"{delivery.title}: the result does not list every image that was sent")
        names = {
            entry["instance"]: sample.path.name
            for entry, sample in zip(document["images"], delivery.samples, strict=True)
        }
        images = [
            _image(sample, entry, answer, names)
            for sample, entry, answer in zip(
                delivery.samples, document["images"], answers, strict=True
            )
        ]
        row: Json = {
            "status": document["status"],
            "reason": document["reason"],
            "value": document["value"],
            "finding": document["finding"],
            "images": images,
            "result": job["result"],
            "document": document,
            "shown": "",
        }
        if document["status"] == ANALYSED:
            self.overlays[delivery.key] = self._client.overlay(job["result"])
            row["shown"] = names[document["value"]["image"]]
        return row


def digests(studies: Sequence[Json]) -> list[tuple[str, str]]:
    """Return what the results say they were computed with: name and digest.

    Raises:
        DemoError: they do not agree, or there is none.
    """
    found = {
        (
            ("Package", document["package"]),
            ("Network", document["engine"]["model_sha256"]),
            (f"Pixel pipeline {document['pipeline']['name']}", document["pipeline"]["digest"]),
            (f"Profile {document['profile']['name']}", document["profile"]["digest"]),
        )
        for study in studies
        if (document := study["document"]) and document["package"]  # none: no route
    }
    if len(found) != 1:
        raise DemoError(f"{len(found)} different sets of digests in the results of one run")
    return list(found.pop())


def as_document(summary: Json) -> Json:
    """Return the summary as it is saved: without the whole result documents."""
    kept: Json = json.loads(json.dumps(summary))
    for study in kept["studies"]:
        study.pop("document", None)
    return kept


def _row(delivery: Delivery) -> Json:
    return {
        "key": delivery.key,
        "title": delivery.title,
        "route": str(delivery.route),
        "expects": delivery.expects,
        "result": None,
        "document": None,
        "shown": "",
    }


def _not_taken_in(delivery: Delivery, reason: Json) -> Json:
    return {
        "status": NOT_TAKEN_IN,
        "reason": reason,
        "value": None,
        "images": [
            {"name": sample.path.name, "about": sample.about, "bytes": _size(sample.path)}
            for sample in delivery.samples
        ],
        "result_s": None,
    }


def _image(sample: Sample, entry: Json, answer: str, names: dict[str, str]) -> Json:
    return {
        "name": sample.path.name,
        "about": sample.about,
        "lossless": sample.lossless,
        "bytes": _size(sample.path),
        "answer": answer,
        "status": entry["status"],
        "probability": entry.get("probability"),
        "logit": entry.get("logit"),
        "decision": entry.get("decision"),
        "reason": entry.get("reason"),
        "same_as": names.get(entry.get("same_as", "")),
        "cells": [len(entry["cam"]), len(entry["cam"][0])] if entry.get("cam") else None,
        "checks": entry.get("checks", []),
        "operations": entry.get("operations", []),
    }


def _accepted(answer: str) -> bool:
    return answer.startswith("0x0000") or answer.endswith("stored")


def _without_age(jobs: Sequence[Json]) -> list[Json]:
    return [{key: value for key, value in job.items() if key != "age_s"} for job in jobs]


def _size(path: Path) -> int:
    return path.stat().st_size


def _count(paths: Sequence[Path]) -> str:
    size = sum(_size(path) for path in paths) / 1e6
    return f"{len(paths)} file{'s' if len(paths) != 1 else ''}, {size:.2f} MB"
