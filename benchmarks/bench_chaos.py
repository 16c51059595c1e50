"""Chaos campaign: jobs of three tenants on a real cluster of three nodes, under random faults, and what became of them.

Every job that was not cancelled must end with the bytes of a run that nothing disturbed, every record must obey the
rules of `tests.histories`, no node may ever have been given more than it has, and nothing may be left over.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.report import write_report
from influencerai.errors import ConflictError, StoreError

if TYPE_CHECKING:
    from tests.cluster.chaos import Chaos
    from tests.cluster.site import Site

TENANTS = ("ann", "bob", "cid")
CONFIGS: tuple[dict[str, Any], ...] = (
    {"name": "Plain", "epochs": 30},
    {"name": "Every File", "epochs": 24, "meta": {"saveEveryNEpochs": 4}},
    {"name": "Pictures", "epochs": 16, "meta": {"samplePrompts": ["ohwx"], "sampleEveryNEpochs": 4}},
    {"name": "Draws", "epochs": 24, "meta": {"gradientAccumulation": 2, "ema": True, "captionDropout": 0.2}},
)
SETTINGS: dict[str, Any] = {
    "lease_seconds": 3,
    "start_seconds": 30,
    "cancel_grace_seconds": 15,
    "stall_seconds": 60,
    "retry_seconds": 0.02,
    # Faults that come by the dozen are no reason to give a job up.
    "lost_attempts": 1000,
    "broken_attempts": 1000,
}
_AT_ONCE = 6
_OUTAGE_SECONDS = 60.0
_END_SECONDS = 900.0
# Read when torch and Ray are imported: one thread per operation, and a token of this campaign alone.
_SURROUNDINGS = {"OMP_NUM_THREADS": "1", "INFLUENCERAI_THREADS": "1", "RAY_AUTH_MODE": "token"}
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres", "both"], default="both")
    parser.add_argument("--faults", type=int, default=100, help="at least, on each database")
    parser.add_argument("--jobs", type=int, default=30, help="at least, on each database")
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing more is struck or submitted")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    os.environ |= {**_SURROUNDINGS, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    config = {"configs": CONFIGS, "settings": SETTINGS, "seed": arguments.seed, "nodes": 3, "tenants": TENANTS}
    figures: dict[str, Any] = {}
    for kind in ("sqlite", "postgres") if arguments.database == "both" else (arguments.database,):
        with _site(kind) as (site, postgres):
            campaign = Campaign(site, postgres, seed=arguments.seed)
            campaign.run(faults=arguments.faults, jobs=arguments.jobs, seconds=arguments.minutes * 60)
            figures[kind] = campaign.figures()
        write_report(arguments.out, "chaos", config=config, figures=figures, text=_text(figures))
    if any(found["violations"] for found in figures.values()):
        raise SystemExit(1)


class Campaign:
    """Jobs go in and faults strike, until there have been enough of both; then everything must be in order."""

    def __init__(self, site: Site, postgres: Any, *, seed: int) -> None:
        from tests.cluster.chaos import Chaos

        self._site = site
        self._jobs: list[tuple[str, str, str]] = []
        """(Id, tenant, name of the configuration)."""
        self._cancelled: set[str] = set()
        self._loads: list[float] = []
        self._violations: list[str] = []
        self._seconds = 0.0
        self._submitted: Counter[str] = Counter()
        self._chaos: Chaos = Chaos(site, seed=seed, cancel=self._cancel, postgres=postgres)
        self._expected = {config["name"]: self._reference(config) for config in CONFIGS}

    def run(self, *, faults: int, jobs: int, seconds: float) -> None:
        begun = time.monotonic()
        while len(self._chaos.faults) < faults or len(self._jobs) < jobs:
            if time.monotonic() - begun > seconds:
                print(f"The time is over after {len(self._chaos.faults)} faults.", flush=True)
                break
            for _ in range(_AT_ONCE - len(self._active())):
                self._submit()
            self._chaos.pause_between()
            # Not faster than jobs go in, so that all of them have their share.
            is_time = len(self._chaos.faults) < min(faults, faults * len(self._jobs) / max(1, jobs))
            if is_time and (fault := self._chaos.next()):
                number = len(self._chaos.faults)
                print(f"{fault.at:6.1f} s  {number}/{faults} {fault.kind}: {fault.target}", flush=True)
                self._loads.append(os.getloadavg()[0])
        self._chaos.recover()
        print(f"Waiting for {len(self._active())} jobs to end.", flush=True)
        deadline = time.monotonic() + _END_SECONDS
        while self._active() and time.monotonic() < deadline:
            time.sleep(0.5)
            self._chaos.follow_up()
        self._seconds = time.monotonic() - begun
        self._check()

    def figures(self) -> dict[str, Any]:
        histories = [self._history(id, tenant) for id, tenant, _ in self._jobs]
        return {
            "faults": dict(Counter(fault.kind for fault in self._chaos.faults).most_common()),
            "jobs": dict(Counter(_ending(history) for history in histories).most_common()),
            "attempts": dict(Counter(row["outcome"] for found in histories for row in found.attempts).most_common()),
            "most_attempts_at_one_job": max(len(found.attempts) for found in histories),
            "events": sum(len(found.events) for found in histories),
            "minutes": round(self._seconds / 60, 1),
            "load": round(sum(self._loads) / max(1, len(self._loads)), 1),
            "violations": self._violations,
        }

    # Jobs

    def _reference(self, config: dict[str, Any]) -> dict[str, bytes]:
        """The files of a job with this configuration, which nothing disturbs and which is looked at closely."""
        id = self._site.submit(tenant=TENANTS[0], **config)
        self._site.wait(id)
        self._site.check_undisturbed(id)
        return self._site.files(id)

    def _submit(self) -> None:
        tenant = min(TENANTS, key=lambda name: self._submitted[name])
        config = CONFIGS[len(self._jobs) % len(CONFIGS)]
        id = self._patiently(lambda: self._site.submit(tenant=tenant, **config))
        self._jobs.append((id, tenant, config["name"]))
        self._submitted[tenant] += 1

    def _active(self) -> list[tuple[str, str]]:
        found = [
            (id, tenant, self._patiently(partial(self._site.job, id, tenant=tenant))) for id, tenant, _ in self._jobs
        ]
        return [(id, tenant) for id, tenant, job in found if job.status in ("pending", "running")]

    def _cancel(self, draw: random.Random) -> str | None:
        """At most one job of six."""
        candidates = [item for item in self._active() if item[0] not in self._cancelled]
        if not candidates or 6 * len(self._cancelled) >= len(self._jobs):
            return None
        id, tenant = draw.choice(candidates)
        try:
            self._patiently(lambda: self._site.ask(lambda service: service.jobs.cancel(tenant, id)))
        except ConflictError:  # it has just ended
            return None
        self._cancelled.add(id)
        return id

    def _history(self, id: str, tenant: str) -> Any:
        return self._patiently(partial(self._site.history, id, tenant=tenant))

    # Checks

    def _check(self) -> None:
        for id, tenant, name in self._jobs:
            self._expect(f"job {id}", partial(self._check_job, id, tenant, name))
        self._expect("the nodes", self._site.check_never_overcommitted)
        self._expect("what is left", self._check_left)

    def _check_job(self, id: str, tenant: str, name: str) -> None:
        from tests.attempts import lora_files

        history = self._site.check(id, tenant=tenant)
        ending, result = _ending(history), history.job.result or {}
        if ending == "cancelled" and id in self._cancelled:
            return
        assert ending == "completed", f"it is {ending}: {result}"
        found = lora_files((self._site.root / result["loraPath"]).parent)
        assert found.keys() == self._expected[name].keys(), f"its files are {sorted(found)}"
        other = [file for file in found if found[file] != self._expected[name][file]]
        assert not other, f"these files have other bytes: {other}"

    def _check_left(self) -> None:
        from tests.histories import temporary_files

        self._site.check_idle()
        own = [path for path in (self._site.root / ".influencerai").iterdir() if path != self._site.settings.cache_dir]
        left = temporary_files(self._site.root / "data", *(path for path in own if path.is_dir()))
        assert not left, f"temporary files are left: {left}"

    def _expect(self, what: str, check: Callable[[], object]) -> None:
        try:
            check()
        except AssertionError as error:
            text = f"{what}: {str(error)[:2000]}"
            print(f"VIOLATION {text}", flush=True)
            self._violations.append(text)

    def _patiently(self, question: Callable[[], T]) -> T:
        """Return the service's result, retrying while the database is unavailable."""
        deadline = time.monotonic() + _OUTAGE_SECONDS
        while True:
            try:
                return question()
            except StoreError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


@contextmanager
def _site(kind: str) -> Iterator[tuple[Site, Any]]:
    """An empty site over a database of this kind; the server, where there is one to stop."""
    from tests.cluster.site import site
    from tests.databases import start_server, upgrade

    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    postgres = start_server(folder / "postgres") if kind == "postgres" else None
    url = f"sqlite:///{folder / 'chaos.db'}" if postgres is None else postgres.get_uri()
    try:
        upgrade(url)
        with site(folder / "root", url, **SETTINGS) as opened:
            yield opened, postgres
    finally:
        if postgres is not None:
            postgres.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _ending(history: Any) -> str:
    if history.job.status == "failed" and (history.job.result or {}).get("cancelled"):
        return "cancelled"
    return str(history.job.status)


def _text(figures: dict[str, Any]) -> str:
    parts = []
    for kind, found in figures.items():
        faults, jobs = sum(found["faults"].values()), sum(found["jobs"].values())
        parts.append(
            f"## {kind}\n\n{faults} faults over {jobs} jobs in {found['minutes']} minutes (load {found['load']}); "
            f"violations: {len(found['violations'])}.\n\n"
            f"| fault | times |\n|---|---|\n{_rows(found['faults'])}\n\n"
            f"| jobs that ended | count |\n|---|---|\n{_rows(found['jobs'])}\n\n"
            f"| attempts that ended | count |\n|---|---|\n{_rows(found['attempts'])}\n\n"
            f"At most {found['most_attempts_at_one_job']} attempts at one job; {found['events']} events were checked."
        )
        parts += [f"- {violation}" for violation in found["violations"]]
    return "\n\n".join(parts)


def _rows(counts: dict[str, int]) -> str:
    return "\n".join(f"| {name} | {count} |" for name, count in counts.items())


if __name__ == "__main__":
    main()
