"""Clients: one server, one tenant, and its datasets, configurations and jobs."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx2

from influencerai.client.answers import document_of
from influencerai.client.blocking import at_once
from influencerai.client.connection import DEFAULT_TIMEOUT, Connection
from influencerai.client.datasets import AsyncDatasets, Datasets
from influencerai.client.jobs import AsyncJobs, Jobs
from influencerai.client.lora_configs import AsyncLoraConfigs, LoraConfigs
from influencerai.client.transport import AwaitingTransport, BlockingTransport
from influencerai.domain.base_model_entry import BaseModelEntry
from influencerai.domain.presets import Preset
from influencerai.domain.usage import Usage
from influencerai.errors import ValidationError

DEFAULT_URL = "http://127.0.0.1:3001"
DEFAULT_RETRIES = 3


class AsyncInfluencerAIClient:
    """A client whose methods are awaited. Use it as a context, or close it.

    Args:
        base_url: address of the server.
        tenant_id: the tenant; enough in development, where the server trusts it.
        api_key: an API key or a JWT, which a server in production wants.
        timeout: seconds that a request may wait for the server at any point.
        retries: tries after the first one, where a second one is safe.
        on_warning: called with each warning that an answer carries; by default they are Python's warnings.
        http: the client below, where it needs a proxy, certificates or limits of its own; it is closed with this one.

    Raises:
        ValidationError: the address, the tenant or the key could not be sent.
    """

    datasets: AsyncDatasets
    lora_configs: AsyncLoraConfigs
    jobs: AsyncJobs

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        tenant_id: str | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        on_warning: Callable[[str], object] | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        url, headers = _checked(base_url, tenant_id, api_key)
        http = http or httpx2.AsyncClient(timeout=timeout, verify=url.startswith("https:"))
        http.headers.update(headers)
        transport = AwaitingTransport(http)
        self._connection = Connection(transport, base_url=url, retries=retries, on_warning=on_warning)
        self.datasets = AsyncDatasets(self._connection)
        self.lora_configs = AsyncLoraConfigs(self._connection)
        self.jobs = AsyncJobs(self._connection)

    async def cluster(self) -> dict[str, Any]:
        """The machines that train, what is free of them, and which of your jobs run where, as JSON."""
        return await self._connection.document("/cluster")

    async def models(self) -> tuple[BaseModelEntry, ...]:
        """The base models that configurations can name, and whether the server has them."""
        return await self._connection.items(BaseModelEntry, "/models")

    async def presets(self) -> tuple[Preset, ...]:
        """Values for a configuration's fields to start from."""
        return await self._connection.items(Preset, "/presets")

    async def usage(self) -> Usage:
        """What the tenant has, has used and may use."""
        return await self._connection.get(Usage, "/usage")

    async def readiness(self) -> dict[str, Any]:
        """Whether the server can serve, and what it stands on, as JSON; what is not ready is no error."""
        return await _readiness(self._connection)

    async def close(self) -> None:
        """Close its connections."""
        await self._connection.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class InfluencerAIClient:
    """A client whose methods block: the same ones, with the same arguments and results, as `AsyncInfluencerAIClient`.

    It works inside a running event loop too, as in a notebook, which it keeps from running while it waits.
    """

    datasets: Datasets
    lora_configs: LoraConfigs
    jobs: Jobs

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        tenant_id: str | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        on_warning: Callable[[str], object] | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        url, headers = _checked(base_url, tenant_id, api_key)
        http = http or httpx2.Client(timeout=timeout, verify=url.startswith("https:"))
        http.headers.update(headers)
        transport = BlockingTransport(http)
        self._connection = Connection(transport, base_url=url, retries=retries, on_warning=on_warning)
        self.datasets = Datasets(AsyncDatasets(self._connection))
        self.lora_configs = LoraConfigs(AsyncLoraConfigs(self._connection))
        self.jobs = Jobs(AsyncJobs(self._connection))

    def cluster(self) -> dict[str, Any]:
        """As the awaited client's."""
        return at_once(self._connection.document("/cluster"))

    def models(self) -> tuple[BaseModelEntry, ...]:
        """As the awaited client's."""
        return at_once(self._connection.items(BaseModelEntry, "/models"))

    def presets(self) -> tuple[Preset, ...]:
        """As the awaited client's."""
        return at_once(self._connection.items(Preset, "/presets"))

    def usage(self) -> Usage:
        """As the awaited client's."""
        return at_once(self._connection.get(Usage, "/usage"))

    def readiness(self) -> dict[str, Any]:
        """As the awaited client's."""
        return at_once(_readiness(self._connection))

    def close(self) -> None:
        """Close its connections."""
        at_once(self._connection.transport.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _readiness(connection: Connection) -> dict[str, Any]:
    response = await connection.request("GET", "/readyz", accepted=503)
    found: dict[str, Any] = document_of(response)
    return found


def _checked(base_url: str, tenant_id: str | None, api_key: str | None) -> tuple[str, dict[str, str]]:
    """The address without a slash at its end, and the headers that say who sends a request."""
    headers = {}
    for name, value in (("tenant_id", tenant_id), ("api_key", api_key)):
        if value is not None and not (value.isascii() and value.isprintable() and value == value.strip() != ""):
            raise ValidationError(field_errors={name: ["It should be printable ASCII, without spaces around it"]})
    if tenant_id is not None:
        headers["x-tenant-id"] = tenant_id
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    return checked_url(base_url), headers


def checked_url(base_url: str) -> str:
    """The address as httpx2 writes it, its scheme in lower case, without a slash at its end.

    Raises:
        ValidationError: it is none of a server's, or holds a password.
    """
    shown = "It" if "@" in str(base_url) else repr(base_url)  # what stands before an @ may be a password
    no_address = ValidationError(
        field_errors={"base_url": [f"{shown} is no address of a server, such as {DEFAULT_URL}"]}
    )
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, TypeError):
        raise no_address from None
    if url.scheme not in ("http", "https") or not url.host:
        raise no_address
    if url.userinfo:
        text = "It should hold no user and no password, which messages would show: use api_key"
        raise ValidationError(field_errors={"base_url": [text]})
    return str(url).rstrip("/")
