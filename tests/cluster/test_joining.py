"""Nodes that join and leave: only one that can train as the others is given jobs, and none takes a job with it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from influencerai.cluster.joining import NodeOffer, start_command, start_environment
from influencerai.cluster.probe import MARKERS, Facts, differences, own_facts
from influencerai.errors import ValidationError
from tests.cluster.site import Site

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
on_ray = pytest.mark.xdist_group("ray")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts folders over others")
ONE_CORE = ("--cpus", "1", "--memory-gb", "8")
BLIND = "It does not see the server's root: the same path is another folder there"
ELSEWHERE = "The database is SQLite, which works on one machine: use Postgres"
LOOK = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from influencerai.cluster.probe import look
print(json.dumps(asdict(look(Path(sys.argv[1]), Path(sys.argv[2]), "ours", "theirs"))))
"""


def hidden(folder: Path) -> tuple[str, ...]:
    """A view of this machine in which a folder is another, empty one."""
    return "unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {shlex.quote(str(folder))} && exec "$0" "$@"'


def renamed(host: str) -> tuple[str, ...]:
    """A view of this machine under another name."""
    return "unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$0" "$@"'


def older(folder: Path, package: str) -> dict[str, str]:
    """An environment in which a package says that it is of another version."""
    place = folder / f"{package}-0.0.1.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.1\n")
    return {"PYTHONPATH": str(folder)}


def looked(
    root: Path, models: Path, *, inside: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> Facts:
    """What a process finds that sees this machine as another one would."""
    command = [*inside, sys.executable, "-c", LOOK, str(root), str(models)]
    said = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=True
    )
    return Facts(**json.loads(said.stdout))


@as_root
@on_ray
@pytest.mark.campaign
def test_a_node_that_cannot_train_like_the_others_says_what_is_missing(alone: Site, tmp_path: Path) -> None:
    model = alone.settings.models_dir / "studio" / "anime"
    model.mkdir(parents=True)
    (model / "model_index.json").write_text("{}")
    alone.staff(1)
    for name, inside, environment, reason in (
        ("blind", hidden(alone.root), {}, BLIND),
        ("elsewhere", renamed("elsewhere"), {}, ELSEWHERE),
        ("poor", hidden(alone.settings.models_dir), {}, "Base models are missing: studio/anime."),
        ("old", (), older(tmp_path, "diffusers"), "diffusers is 0.0.1, not "),
    ):
        alone.join(name, *ONE_CORE, inside=inside, **environment)
        alone.wait_for_problem(name, reason)
    id = alone.submit(epochs=1)
    assert alone.where(id) == []
    alone.join("good", *ONE_CORE)
    assert alone.wait(id).status == "completed"
    assert alone.where(id) == ["good"]
    left = list((alone.root / ".influencerai/cluster").iterdir())
    alone.workers.pop().terminate()
    assert len(left) <= 4 * 2


@as_root
@pytest.mark.parametrize(
    ("view", "reason"),
    [("same", None), ("blind", BLIND), ("elsewhere", ELSEWHERE), ("poor", "Base models are missing: studio/anime.")],
)
def test_what_a_machine_sees_decides_whether_it_may_train(view: str, reason: str | None, tmp_path: Path) -> None:
    """The look of a node in a process of its own, which sees this machine as another one would."""
    root, models = tmp_path / "root", tmp_path / "models"
    (root / MARKERS).mkdir(parents=True)
    (root / MARKERS / "ours").write_text("text")
    (models / "studio/anime").mkdir(parents=True)
    (models / "studio/anime/model_index.json").write_text("{}")
    inside = {"blind": hidden(root), "elsewhere": renamed("elsewhere"), "poor": hidden(models)}.get(view, ())
    facts = looked(root, models, inside=inside)
    found = differences(facts, own_facts(models), needs_one_machine=True)
    assert len(found) == (reason is not None)
    assert (reason or "") in " ".join(found)
    assert (root / MARKERS / "theirs").exists() == (view != "blind")


def test_other_versions_are_named(tmp_path: Path) -> None:
    facts = looked(tmp_path, tmp_path, environment=older(tmp_path / "packages", "diffusers"))
    found = differences(facts, own_facts(tmp_path), needs_one_machine=False)
    assert any(text.startswith("diffusers is 0.0.1, not ") for text in found)


@pytest.mark.slow
@on_ray
def test_a_node_that_is_asked_to_leave_gives_its_job_to_another(alone: Site) -> None:
    alone.staff(1)
    alone.join("one", *ONE_CORE)
    alone.wait_for_nodes("one")
    id = alone.submit(epochs=30)
    alone.wait_for_step(id, 8)
    alone.add_node("two", cpus=1)
    leaving = alone.ask_to_leave("one")
    alone.wait_for_outcome(id, 1)
    leaving.wait(60)
    alone.wait(id)
    alone.check_undisturbed(id)
    assert alone.outcomes(id) == ["released", "completed"]
    assert alone.where(id) == ["one", "two"]


def test_what_a_machine_offers_becomes_ray_start() -> None:
    offer = NodeOffer(name="box", host="10.0.0.2", cpus=8, memory_gb=32, gpus=2, gpu_memory_gb=24)
    command = start_command(offer, head_address="10.0.0.1:6379")
    assert command[3:5] == ["start", "--address=10.0.0.1:6379"]
    assert {"--num-cpus=8", "--num-gpus=2", "--memory=32000000000"} <= {*command}
    assert {"--node-ip-address=10.0.0.2", "--block"} <= {*command}
    assert "--labels=influencerai/name=box,influencerai/gpu-memory-gb=24" in command
    assert {"--head", "--port=7000"} <= {*start_command(NodeOffer(), head_address=None, port=7000)}


@pytest.mark.parametrize("name", ["", "my box", "box,influencerai/gpu-memory-gb=99", "-box", "b" * 64, "böx"])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be called"):
        start_command(NodeOffer(name=name), head_address=None)


@pytest.mark.slow
def test_a_token_that_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".ray").write_text("a file where Ray's folder should be")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ValidationError, match="Ray cannot make a token"):
        start_environment(NodeOffer(), is_head=True)


@pytest.mark.slow
def test_without_a_token_nobody_joins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ValidationError, match="no token"):
        start_environment(NodeOffer(), is_head=False)
    environment = start_environment(NodeOffer(drain_seconds=7), is_head=True)
    assert len((tmp_path / ".ray/auth_token").read_text()) >= 32
    assert environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "7"
    start_environment(NodeOffer(), is_head=False)


def test_a_node_keeps_its_settings_and_its_token_is_its_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir(mode=0o755)
    file.write_text("t" * 64)
    file.chmod(0o644)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    settings = {"INFLUENCERAI_JWT_SECRET": "s" * 40, "INFLUENCERAI_DATABASE_URL": "postgresql://me:password@host/db"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    environment = start_environment(NodeOffer(), is_head=False)
    assert environment.items() >= settings.items()
    assert environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == "influencerai.serve.proxy_process:bounded"
    assert [path.stat().st_mode & 0o777 for path in (file.parent, file)] == [0o700, 0o600]
