"""Hands an archive's files out to workers, takes note of what they answer, and goes on where a run was stopped.

Nothing is held for each file but its digest: files are listed as they are handed out, and the journals on disk say what
is done.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from segdeploy.errors import RequestError
from segdeploy.files import digest_of, locked, replacing
from segdeploy.model.card import name_for_others, read_card
from segdeploy.picture.decoding import MOST_PIXELS
from segdeploy.run.crew import Answer, Crew, Order
from segdeploy.run.crew_ray import demand_cluster
from segdeploy.run.crews import crew_for, threads_of_each
from segdeploy.run.hands import Hands
from segdeploy.run.peek import signature_in
from segdeploy.run.runtimes import runtime_for
from segdeploy.serve.archive.areas import finished_files, load_arrow, write_areas
from segdeploy.serve.archive.items import Digests, Item
from segdeploy.serve.archive.journal import finished_in, journal_for, shard_name
from segdeploy.serve.archive.listing import common_root, demand_listable, items_of
from segdeploy.serve.archive.panoptic import write_panoptic
from segdeploy.serve.archive.plan import ArchivePlan, keep_plan, read_plan
from segdeploy.serve.archive.worker import Setup
from segdeploy.untrusted import parse_json

RETRIES = 2
PAUSE_S = 1.0  # before failed files are tried again: a server may have been away


CrewOf = Callable[[Order, "ArchiveRequest"], Crew]


@dataclass(frozen=True)
class ArchiveRequest:
    model: Path
    sources: tuple[str, ...]
    output: Path
    labels: str = "png"
    areas: str | None = None
    workers: int | None = (
        None  # None: one for each GPU that was named, or for two cores; on a cluster what fits
    )
    shard: int = 1
    shards: int = 1
    fit: str = "stretch"
    resize: str | None = None
    every: int = 1
    most_pixels: int = MOST_PIXELS
    card: str | None = None
    provider: str | None = None
    threads: int | None = None
    devices: tuple[int, ...] = ()
    ray: str | None = None  # a cluster's address, or `local`

    def demand_sense(self) -> None:
        if not 1 <= self.shard <= self.shards:
            raise RequestError(f"shard {self.shard}/{self.shards} is out of range; expected 1/{self.shards} to"
                               f" {self.shards}/{self.shards}")  # fmt: skip
        if self.labels == "none" and not self.areas:
            raise RequestError("--labels none leaves nothing to write; give --areas parquet or csv too")
        if self.devices and not runtime_for(self.model, self.provider).on_gpu:
            raise RequestError(
                f"--device is of a GPU, and {self.model.name} would run on the CPU; give --provider cuda or"
                " tensorrt, or an .engine"
            )
        if self.devices and self.ray:
            raise RequestError(
                "--device is for this machine; on a cluster Ray gives each worker a GPU: leave it out"
            )
        if self.areas == "parquet":
            load_arrow()
        if self.ray:
            demand_cluster(self.ray)
        demand_listable(self.sources)


@dataclass(frozen=True)
class Archived:
    """Counts what an archive holds after a run; failed files are listed in a file, with the reason."""

    output: Path
    files: int  # done in this run
    frames: int
    before: int  # files that were done already
    failed: int  # files, and members of tars
    failures: Path | None
    areas: Path | None

    def __str__(self) -> str:
        known = f", {self.before:,} were done before" if self.before else ""
        lost = f"; {self.failed:,} failed, with the reason in {self.failures}" if self.failed else ""
        return f"{self.output}: {self.files:,} files done, {self.frames:,} frames{known}{lost}"


def archive(
    request: ArchiveRequest,
    progress: Callable[[], object] = lambda: None,
    crew_of: CrewOf | None = None,
) -> Archived:
    """Segment each file of the sources that is in this shard and not done yet; `progress` is called for each file."""
    request.demand_sense()
    output = request.output
    plan = plan_of(request)
    if next(items_of(request.sources, plan.root, output), None) is None:
        raise RequestError(
            f"{', '.join(request.sources)} holds no image, video or tar; expected some, in it or below it"
        )
    keep_plan(plan, output)
    with locked(output / f"shard-{shard_name(request.shard, request.shards)}"):
        work = Work(request, plan, progress, crew_of or crew_of_request)
        work.run()
        failures = keep_failures(request, work)
        areas = (
            write_areas(output, request.shard, request.shards, plan.classes, request.areas)
            if request.areas
            else None
        )
        if request.labels == "panoptic":
            card = read_card(request.card) if request.card else None
            write_panoptic(output, request.shards, signature_in(request.model, card).labels)
    return Archived(output, work.files, work.frames, work.before, work.failed + work.bad, failures, areas)


def plan_of(request: ArchiveRequest) -> ArchivePlan:
    """Say what the folder is or will be; the sources' common root stays the one that it was begun with."""
    card = read_card(request.card) if request.card else None
    classes = signature_in(request.model, card).labels.names
    found = read_plan(request.output)
    same = (
        found is not None and found.sources == request.sources and all(map(os.path.lexists, request.sources))
    )
    root = found.root if found and same else common_root(request.sources)
    return ArchivePlan(
        request.model.name, digest_of(request.model), classes, request.sources, root, request.labels, request.fit,
        request.resize, request.every, request.shards,
    )  # fmt: skip


def count_files(request: ArchiveRequest) -> int:
    """Count the files of this shard, for a bar that says how long it takes."""
    return sum(
        item.shard(request.shards) == request.shard
        for item in items_of(request.sources, common_root(request.sources), request.output)
    )


def crew_of_request(order: Order, request: ArchiveRequest) -> Crew:
    return crew_for(
        order,
        request.model,
        provider=request.provider,
        count=request.workers,
        devices=request.devices,
        ray=request.ray,
        threads=order.setup["threads"],
    )


def order_of(request: ArchiveRequest, digest: str) -> Order:
    threads = threads_of_each(request.model, request.provider, request.workers, request.ray, request.threads)
    setup = Setup(
        str(request.model.absolute()), digest, str(request.output.absolute()), request.shard, request.shards,
        request.labels, request.fit, request.resize, request.every, request.most_pixels, name_for_others(request.card),
        request.provider, threads,
    )  # fmt: skip
    return Order("segdeploy.serve.archive.worker:open_segmenter", asdict(setup))


class Work:
    """Is one run: passes over the files that are to do, the later ones over those that failed before."""

    def __init__(
        self,
        request: ArchiveRequest,
        plan: ArchivePlan,
        progress: Callable[[], object],
        crew_of: CrewOf,
    ) -> None:
        self._request, self._plan = request, plan
        self._progress, self._crew_of = progress, crew_of
        self.files = self.frames = self.before = self.failed = self.bad = 0
        self._seen = Digests()
        for finished in finished_files(request.output, request.shard, request.shards):
            self._seen.add(finished.item.digest)
            self.bad += len(finished.bad)

    def run(self) -> None:
        crew = self._crew_of(order_of(self._request, self._plan.digest), self._request)
        hands = Hands(crew, self._done_by)
        try:
            todo = self._listed()
            for number in range(1, 2 + RETRIES):
                self.failed = 0
                with replacing(self.failed_path(number)) as part, part.open("w") as failed:
                    for task, answer in hands.work([item.name, item.place] for item in todo):
                        self._take(Item(*task), answer, failed)
                if not self.failed:
                    break
                if number <= RETRIES:
                    time.sleep(PAUSE_S)
                todo = failed_items(self.failed_path(number))
        finally:
            crew.close()
        for _ in range(self.failed):
            self._progress()

    def failed_path(self, number: int) -> Path:
        request = self._request
        return (
            request.output / "journal" / f"failed-{shard_name(request.shard, request.shards)}.{number}.jsonl"
        )

    def _listed(self) -> Iterator[Item]:
        """Yield the files of this shard that are not done; one that two sources name comes once."""
        request = self._request
        for item in items_of(request.sources, self._plan.root, request.output):
            if item.shard(request.shards) != request.shard:
                continue
            if self._seen.add(item.digest):
                yield item
            else:
                self.before += 1
                self._progress()

    def _done_by(self, worker: str) -> dict[str, Answer]:
        """Read what a worker did that died, before it could say so."""
        path = journal_for(self._request.output, self._request.shard, self._request.shards, worker)
        if not path.is_file():
            return {}
        return {
            one.item.name: {"key": one.item.name, "frames": len(one.rows), "bad": len(one.bad)}
            for one in finished_in(path)
        }

    def _take(self, item: Item, answer: Answer, failed: TextIO) -> None:
        if "reason" in answer:
            self.failed += 1
            failed.write(
                json.dumps({"file": item.name, "place": item.place, "reason": answer["reason"]}) + "\n"
            )
            return
        self.files += 1
        self.frames += answer["frames"]
        self.bad += answer["bad"]
        self._progress()


def failed_items(path: Path) -> Iterator[Item]:
    with path.open() as lines:
        for line in lines:
            record = parse_json(line)
            yield Item(record["file"], record["place"])


def keep_failures(request: ArchiveRequest, work: Work) -> Path | None:
    """Write the files that failed to the end, and the members of tars, with their reasons; returns the file, if any."""
    name = shard_name(request.shard, request.shards)
    path = request.output / ("failures.jsonl" if request.shards == 1 else f"failures.{name}.jsonl")
    passes = [one for one in map(work.failed_path, range(1, 2 + RETRIES)) if one.is_file()]
    if work.failed or work.bad:
        with replacing(path) as part, part.open("w") as file:
            if work.failed:
                with passes[-1].open() as lines:
                    file.writelines(map(without_place, lines))
            if work.bad:
                file.writelines(json.dumps(member) + "\n" for member in bad_members(request))
    else:
        path.unlink(missing_ok=True)
    for one in passes:
        one.unlink(missing_ok=True)
    return path if work.failed or work.bad else None


def without_place(line: str) -> str:
    record = parse_json(line)
    return json.dumps({"file": record["file"], "reason": record["reason"]}) + "\n"


def bad_members(request: ArchiveRequest) -> Iterator[dict[str, Any]]:
    for finished in finished_files(request.output, request.shard, request.shards):
        for member, reason in finished.bad:
            yield {"file": f"{finished.item.name}/{member}", "reason": reason}
