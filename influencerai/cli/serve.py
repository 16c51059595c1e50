"""`influencerai serve`: the REST API and its workers, until Ctrl-C."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from influencerai.cli.common import database_url_option, output_options
from influencerai.cli.outcome import print_json
from influencerai.errors import DependencyMissingError, ValidationError
from influencerai.interruption import SIGNALS
from influencerai.settings import SECRET_VARIABLES, Settings

if TYPE_CHECKING:
    from influencerai.runner import Runner
    from influencerai.serve.ray_server import RayServer

Announce = Callable[[Settings, int], None]
"""Says where the server listens."""


@click.command(
    short_help="Serve the REST API and train submitted jobs.",
    epilog="""\b
Examples:
  influencerai serve
  influencerai serve --no-ray --port 8080
  influencerai serve --auth production --database-url postgresql://me@db/influencerai
\b
Everything else is a setting: see `influencerai doctor`. The API's page is at /api.""",
)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [default: 3001]")
@database_url_option
@click.option("--root", type=click.Path(path_type=Path), help="Folder that datasets and results are relative to.")
@click.option("--auth", type=click.Choice(["development", "production"]), help="How requests prove their tenant.")
@click.option(
    "--runner",
    type=click.Choice(["ray", "inline", "none"]),
    help="ray: on every node of the cluster; inline: workers on this machine; none: the API alone, for workers that "
    "report by PATCH.  [default: ray, or inline with --no-ray]",
)
@click.option("--no-ray", is_flag=True, help="Serve from this process, without Ray.")
@click.option("--trust-network", is_flag=True, help="Let development mode listen beyond this machine.")
@output_options
def serve(*, runner: str | None, no_ray: bool, trust_network: bool, as_json: bool, **given: Any) -> None:
    """Serve the REST API, and train the jobs that are submitted to it.

    In development the tenant header of a request is trusted: use that on this machine alone.
    """
    settings = Settings.load(**given)
    _check(settings, trust_network=trust_network)
    if no_ray or "RAY_ADDRESS" not in os.environ:  # there a server that was killed may have left its proxy
        _check_port(settings)
    runner = runner or ("inline" if no_ray else "ray")
    if no_ray and runner == "ray":
        raise ValidationError("The runner 'ray' needs Ray.", remedy="Leave out --no-ray, or use --runner inline.")
    try:
        from influencerai.logs import configure_logs
        from influencerai.runner import InlineRunner
    except ModuleNotFoundError as error:
        raise _without(error.name) from error
    configure_logs(settings)
    settings.apply_files_mask()
    for name in SECRET_VARIABLES:  # read by now; what is started from here needs none of them
        os.environ.pop(name, None)
    workers: Runner | None = InlineRunner(settings) if runner == "inline" else None
    announce = _announce_json if as_json else _announce
    if no_ray:
        asyncio.run(_serve_locally(settings, workers, announce))
        return
    _prepare_ray()
    try:
        from influencerai.cluster.runner import RayRunner
        from influencerai.serve.ray_server import RayServer
    except ModuleNotFoundError as error:
        raise _without(error.name) from error
    if runner == "ray":
        workers = RayRunner(settings)
    server = RayServer(settings, needs_worker=workers is not None)
    asyncio.run(_serve_on_ray(settings, server, workers, announce))


def _without(package: str | None) -> DependencyMissingError:
    return DependencyMissingError(
        f"The server needs the package '{package}', which is not installed.",
        remedy="Run: pip install 'influencerai[train,serve]'.",
    )


async def _serve_locally(settings: Settings, workers: Runner | None, announce: Announce) -> None:
    from influencerai.serve.local_server import LocalServer
    from influencerai.service import Service

    service = Service(settings, needs_worker=workers is not None)
    await service.store.database.check()
    server = LocalServer(service, host=settings.host, port=settings.port)
    _on_signal(server.stop)
    if workers:
        await workers.start()
    try:
        await asyncio.gather(server.serve(), _announce_when_started(server, settings, announce))
    finally:
        if workers:
            await workers.stop()
    if not server.started:
        sys.exit(1)


async def _announce_when_started(server: Any, settings: Settings, announce: Announce) -> None:
    while not server.started and not server.should_exit:
        await asyncio.sleep(0.05)
    if server.started:
        port = server.servers[0].sockets[0].getsockname()[1]
        announce(settings, port)


async def _serve_on_ray(settings: Settings, server: RayServer, workers: Runner | None, announce: Announce) -> None:
    from influencerai.store import Store

    store = Store(settings.database_url)
    await store.database.check()
    await store.database.close()
    stopping = asyncio.Event()
    _on_signal(stopping.set)
    try:
        await asyncio.to_thread(server.connect)
        if not stopping.is_set():
            _on_signal(stopping.set)  # again: Ray has put its own handler there, which ends in an abort
            if workers:
                await workers.start()  # it has the trainer imported while Serve starts
            await asyncio.to_thread(server.deploy)
        if not stopping.is_set():
            announce(settings, server.port)
        await stopping.wait()
        click.echo("Stopping.", err=True)
    finally:
        stops = [asyncio.to_thread(server.stop)]
        await asyncio.gather(*stops, *([workers.stop()] if workers else []), return_exceptions=True)
        await asyncio.to_thread(server.disconnect)


def _on_signal(stop: Callable[[], None]) -> None:
    """Call this on the first Ctrl-C or SIGTERM; the next one has its default effect."""
    loop = asyncio.get_running_loop()

    def receive() -> None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        stop()

    for number in SIGNALS:
        loop.add_signal_handler(number, receive)


def _prepare_ray() -> None:
    """Set what Ray reads when it is imported, or in the processes that it starts."""
    from influencerai.cluster.joining import PROXY_ENVIRONMENT

    os.environ.update(PROXY_ENVIRONMENT)
    if not sys.stderr.isatty():
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    given = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if "RAY_ADDRESS" in os.environ and (given or (Path.home() / ".ray" / "auth_token").exists()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _announce(settings: Settings, port: int) -> None:
    url = _url(settings, port)
    click.echo(f"InfluencerAI listens on {url} (its page: {url}/api). Ctrl-C stops it.")
    shown = {item.name: item.value for item in settings.origins()}  # without passwords
    click.echo(f"Its files are in {settings.root.resolve()}, its database is {shown['database_url']}.", err=True)


def _announce_json(settings: Settings, port: int) -> None:
    print_json({"type": "ready", "url": _url(settings, port)})


def _url(settings: Settings, port: int) -> str:
    return f"http://[{settings.host}]:{port}" if ":" in settings.host else f"http://{settings.host}:{port}"


def _check(settings: Settings, *, trust_network: bool) -> None:
    """Refuse to listen beyond this machine without authentication."""
    if settings.auth == "production" or trust_network or _is_loopback(settings.host):
        return
    raise ValidationError(
        f"Development mode trusts every request, and {settings.host} is not this machine alone.",
        remedy="Use --auth production, or --trust-network where the network is yours.",
    )


def _check_port(settings: Settings) -> None:
    """Refuse a port in use before Ray starts."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ValidationError(
                f"The server cannot listen on {settings.host}:{settings.port}: {error.strerror}.",
                remedy="Stop what listens there, or choose another --port.",
            ) from error


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
