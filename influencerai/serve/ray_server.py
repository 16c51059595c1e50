"""The API on Ray Serve: started or joined, waited for, and stopped with nothing left running."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from influencerai.cluster import loopback
from influencerai.cluster.joining import keep_token_private
from influencerai.errors import ConflictError, InfluencerAIError
from influencerai.logs import configure_logs
from influencerai.serve.ray_bodies import bound_replica
from influencerai.service import Service
from influencerai.settings import Settings

APP_NAME = "influencerai"
_MAX_ONGOING_REQUESTS = 1000
"""An open event stream holds a slot."""
READY_SECONDS = 60.0
_DRAIN_SECONDS = 10.0
_OBJECT_STORE_BYTES = 100 * 2**20
"""Ray's least and more; nothing of ours is put there."""
_QUIET = LoggingConfig(log_level="ERROR", enable_access_log=False)
"""Of Serve itself; requests are logged by the app."""
_PRESENCE = "influencerai-server"
_GONE_SECONDS = 15.0
"""Until Ray has noticed that a server was killed."""
_log = logging.getLogger(__name__)


@ray.remote(num_cpus=0)
class _Presence:
    """Says by its name that a server uses this Ray; it ends with the server, however that ends."""


class Api:
    """The deployment: one service, one app, per replica."""

    def __init__(self, document: dict[str, Any], needs_worker: bool) -> None:
        settings = Settings(**document)
        settings.apply_files_mask()
        configure_logs(settings)
        loopback.close_replica()
        bound_replica()
        self._service = Service(settings, needs_worker=needs_worker)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from influencerai.serve.app import create_app

        return create_app(self._service)

    async def end_streams(self) -> None:
        """End every event stream, so that the replica can be stopped at once."""
        await self._service.event_streams.close()


def api_deployment(**options: Any) -> serve.Deployment:
    """The API for Serve; `options` are those of its deployments in which the ways to deploy it differ."""
    described = serve.deployment(
        name="Api",
        max_ongoing_requests=_MAX_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=_DRAIN_SECONDS,
        logging_config=_QUIET,
        **options,
    )
    return described(serve.ingress()(Api))


class RayServer:
    """Ray and Serve for as long as it runs; a Ray that was there before is joined, and stays."""

    def __init__(self, settings: Settings, *, needs_worker: bool) -> None:
        self._settings = settings
        self._needs_worker = needs_worker
        self._joined = False
        self._presence: Any = None
        self._owns_serve = True
        self.port = settings.port or _free_port(settings.host)

    def connect(self) -> None:
        """Start Ray, or join the one that RAY_ADDRESS names.

        Raises:
            ConflictError: another server uses it.
            InfluencerAIError: it cannot be used.
        """
        for name in ("ray", "ray.serve", "ray._private.worker"):
            logging.getLogger(name).setLevel(logging.ERROR)
        address = os.environ.get("RAY_ADDRESS")
        self._joined = address is not None
        local: dict[str, Any] = (
            {} if self._joined else {"_node_ip_address": loopback.ADDRESS, "object_store_memory": _OBJECT_STORE_BYTES}
        )
        try:
            with nullcontext() if self._joined else loopback.staying_here():
                ray.init(
                    address=address or "local",  # without it, Ray joins what it finds on this machine
                    include_dashboard=False,
                    log_to_driver=True,
                    configure_logging=False,
                    namespace=APP_NAME,
                    **local,
                )
        except (RuntimeError, ConnectionError, ValueError, OSError) as error:
            remedy = (
                "Look at RAY_ADDRESS, and at RAY_AUTH_TOKEN where that cluster wants one."
                if address
                else f"Ray writes to {Path.home() / '.ray'} and to the folder for temporary files: set HOME and TMPDIR "
                "to folders that you may write to, or serve without Ray (--no-ray)."
            )
            raise InfluencerAIError(f"Ray cannot be used: {str(error).splitlines()[0]}", remedy=remedy) from error
        keep_token_private()
        if self._joined:
            self._presence = _be_present()

    def deploy(self) -> None:
        """Start the API on the Ray that is connected, and wait until it answers.

        Raises:
            InfluencerAIError: it is not ready in time; says what is missing.
        """
        try:
            self._owns_serve = not self._joined or not _is_serve_running() or _end_leftover()
            _start_serve(HTTPOptions(host=self._settings.host, port=self.port))
        except (RayError, RuntimeError, ConnectionError, ValueError, OSError) as error:
            raise InfluencerAIError(f"Ray Serve cannot be started: {str(error).splitlines()[0]}") from error
        document = self._settings.to_document()
        deployment = api_deployment(ray_actor_options={"num_cpus": 0}, graceful_shutdown_wait_loop_s=0.2)
        # Not `serve.run`, which would wait without a deadline of ours.
        serve._run(deployment.bind(document, self._needs_worker), name=APP_NAME, route_prefix="/", _blocking=False)
        self._wait_until_ready()

    def stop(self) -> None:
        """End the event streams, then the API; another server's is left alone."""
        if self._joined and self._presence is None:
            return
        with suppress(Exception):
            handle = serve.get_app_handle(APP_NAME)
            handle.end_streams.remote().result(timeout_s=_DRAIN_SECONDS)
        with suppress(Exception):
            serve.delete(APP_NAME)
            if self._joined and self._owns_serve:
                serve.shutdown()  # type: ignore[no-untyped-call]

    def disconnect(self) -> None:
        """Leave Ray, or end the one that was started here."""
        ray.shutdown()

    def _answers(self) -> bool:
        host = "127.0.0.1" if self._settings.host in ("0.0.0.0", "::") else self._settings.host
        connection = http.client.HTTPConnection(host, self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            status = serve.status().applications.get(APP_NAME)
            if status is not None and status.status == "RUNNING" and self._answers():
                return
            if status is not None and status.status == "DEPLOY_FAILED":
                raise InfluencerAIError(f"The API cannot be deployed: {status.message}")
            time.sleep(0.1)
        raise InfluencerAIError(
            f"The API was not ready after {READY_SECONDS:g} s: {_missing()}", remedy="Look into Ray's logs."
        )


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _be_present() -> Any:
    """Have this Ray's servers know of this one.

    Raises:
        ConflictError: another server uses it.
    """
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        try:
            return _Presence.options(name=_PRESENCE).remote()  # type: ignore[attr-defined]
        except ValueError as error:
            if time.monotonic() > deadline:
                raise ConflictError(
                    "Another InfluencerAI server uses this Ray cluster already.",
                    remedy="Use that one, or give this one a cluster of its own: leave RAY_ADDRESS out.",
                ) from error
        time.sleep(0.2)


def _start_serve(options: HTTPOptions) -> None:
    """Start Serve's controller and proxy.

    On a busy machine the controller replaces a proxy that has not started in time, and gives the next one longer;
    Serve's own call fails with the first.

    Raises:
        RayActorError: no proxy has started in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            serve.start(http_options=options, logging_config=_QUIET)
            return
        except RayActorError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _is_serve_running() -> bool:
    """Whether the cluster has a Serve already, whose port is what it was started with."""
    return any(actor["name"] == SERVE_CONTROLLER_NAME for actor in ray.util.list_named_actors(all_namespaces=True))


def _end_leftover() -> bool:
    """End a Serve that has no application but ours, which a killed server has left; whether it was that."""
    if {*serve.status().applications} - {APP_NAME}:
        return False
    serve.shutdown()  # type: ignore[no-untyped-call]
    return True


def _missing() -> str:
    status = serve.status().applications.get(APP_NAME)
    if status is None:
        return "Serve does not know the application."
    deployments = {name: str(found.message or found.status) for name, found in status.deployments.items()}
    return json.dumps(deployments)
