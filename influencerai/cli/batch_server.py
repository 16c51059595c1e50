"""A batch on a server: datasets and configs made known to it, dry runs, and then a few jobs at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from influencerai.cli.batch_check import Checked
from influencerai.cli.batch_state import BatchState, StoredTraining, digest
from influencerai.cli.batch_training import Training
from influencerai.client import AsyncInfluencerAIClient
from influencerai.domain.job import JobDetail
from influencerai.domain.lora_config_record import LoraConfigRecord
from influencerai.domain.output_path import slug
from influencerai.domain.relative_path import normalized
from influencerai.errors import (
    AuthenticationError,
    ConflictError,
    InfluencerAIError,
    NotFoundError,
    PermissionDeniedError,
    StoreError,
    TooManyError,
    UnreachableError,
)

T = TypeVar("T")
UPLOADED = "data/datasets"
"""Where on the server a folder goes that lies outside of the root here."""
_OF_THE_SERVER = (UnreachableError, StoreError, AuthenticationError, PermissionDeniedError)
"""What no other training would be spared."""


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    """A dataset on the server, and what was seen in its folder; or why it cannot be used."""

    id: str = ""
    seen: tuple[tuple[str, str, str], ...] = ()
    """Path, SHA-256 and caption of each picture."""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What a training is submitted by."""

    dataset_id: str
    config_id: str
    entry: StoredTraining

    @property
    def key(self) -> str:
        """By which the server knows this submission again, whenever its answer was lost."""
        return f"batch-{digest([self.entry.identity, self.dataset_id, self.config_id, self.entry.job_id])[:40]}"


class BatchServer:
    """One tenant of a server, as a batch meets it. `say` is told what the user should know."""

    def __init__(
        self,
        url: str,
        *,
        tenant: str | None,
        api_key: str | None,
        state: BatchState,
        root: Path,
        upload: bool,
        say: Callable[[str], None],
    ) -> None:
        self.state = state
        self.say = say
        self.tickets: dict[str, Ticket] = {}
        """By training, of those that were checked and have not ended."""
        self._url = url
        self._tenant = tenant
        self._api_key = api_key
        self._root = root
        self._upload = upload
        self._uploaded_from: dict[str, str] = {}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncInfluencerAIClient]:
        """A client of its own for each event loop."""
        async with AsyncInfluencerAIClient(
            self._url, tenant_id=self._tenant, api_key=self._api_key, on_warning=lambda text: None
        ) as opened:
            yield opened

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, however often the server asks to come back later."""
        while True:
            try:
                return await ask()
            except TooManyError as error:
                self.say(f"The server asks to wait {error.retry_after} seconds: {error.message}.")
                await asyncio.sleep(error.retry_after)

    async def check(self, trainings: Sequence[Training]) -> list[Checked]:
        """Each training with what the server's dry run finds, or with the job that an earlier call has submitted.

        Datasets and configs that the server does not know are made; no job is.

        Raises:
            UnreachableError: the server does not answer.
            AuthenticationError, PermissionDeniedError: it does not believe who asks.
        """
        async with self.client() as client:
            known = {found.path: found.id async for found in client.datasets.list(sort_order="asc")}
            configs = {found.name: found async for found in client.lora_configs.list()}
            pictures: dict[str, _Pictures] = {}
            checked = []
            for training in trainings:
                if training.dataset not in pictures:
                    pictures[training.dataset] = await self._pictures(client, training, known)
                checked.append(await self._check(client, training, pictures[training.dataset], configs))
        return checked

    async def _pictures(self, client: AsyncInfluencerAIClient, training: Training, known: dict[str, str]) -> _Pictures:
        """The dataset, made known and uploaded where that is wanted."""
        try:
            path = self._path_there(training)
            if (id := known.get(path)) is None:
                word = training.config.options.trigger_word
                meta = {"triggerWord": word} if word else {}
                id = (await self.patiently(lambda: client.datasets.create(path=path, meta=meta))).id
            dataset_id = id
            if self._upload:
                folder = self._root / training.dataset
                await self.patiently(lambda: client.datasets.upload(dataset_id, folder, replace=True))
            report = await self.patiently(lambda: client.datasets.report(dataset_id, refresh=True))
        except _OF_THE_SERVER:
            raise
        except (InfluencerAIError, ValueError) as error:
            text = str(error) if isinstance(error, InfluencerAIError) else f"{error}."
            more = "" if self._upload else " With --upload the folder of this machine goes to the server."
            return _Pictures(error=f"{training.dataset}: {text}{more}")
        images = [image for image in report.get("images", ()) if isinstance(image, dict)]
        names = ("path", "sha256", "caption")
        seen = sorted((*(str(image.get(name) or "") for name in names),) for image in images)
        return _Pictures(id=dataset_id, seen=tuple((path, sha256, text) for path, sha256, text in seen))

    def _path_there(self, training: Training) -> str:
        """The dataset's path below the server's root.

        Raises:
            ValueError: it cannot be one, and the folder is not to be uploaded.
            ConflictError: the pictures of another dataset go there.
        """
        try:
            path = normalized(training.dataset)
        except ValueError:
            if not self._upload:
                raise
            path = f"{UPLOADED}/{slug(training.dataset_name, default='pictures')}"
        if self._upload and (other := self._uploaded_from.setdefault(path, training.dataset)) != training.dataset:
            raise ConflictError(
                f"The pictures would go to {path}, where those of {other} go.",
                remedy="Give one of the two datasets another `name`.",
            )
        return path

    async def _check(
        self,
        client: AsyncInfluencerAIClient,
        training: Training,
        pictures: _Pictures,
        configs: dict[str, LoraConfigRecord],
    ) -> Checked:
        if pictures.error:
            return Checked(training=training, problems=(pictures.error,))
        config = {name: value for name, value in training.config.to_wire().items() if name != "description"}
        entry = self.state.get(training.name, digest([config, pictures.id, pictures.seen]))
        checked = Checked(training=training, identity=entry.identity)
        if job := await self._job(client, entry):
            checked = _standing(checked, job)
            if checked.standing == "completed":
                return checked
        try:
            config_id = await self._config_id(client, training, configs)
            self.tickets[training.name] = Ticket(dataset_id=pictures.id, config_id=config_id, entry=entry)
            if job:
                return checked
            report = await self.patiently(lambda: client.jobs.dry_run(dataset_id=pictures.id, lora_config_id=config_id))
        except _OF_THE_SERVER:
            raise
        except InfluencerAIError as error:
            return replace(checked, problems=(str(error),))
        return replace(
            checked,
            problems=tuple(map(str, report.get("errors", ()))),
            warnings=tuple(map(str, report.get("warnings", ()))),
            steps=(report.get("plan") or {}).get("totalSteps"),
            seconds=(report.get("time") or {}).get("seconds"),
        )

    async def _job(self, client: AsyncInfluencerAIClient, entry: StoredTraining) -> JobDetail | None:
        """The job that an earlier call has submitted, where it is still there."""
        job_id = entry.job_id
        if job_id is None:
            return None
        try:
            return await self.patiently(lambda: client.jobs.get(job_id))
        except NotFoundError:
            return None

    async def _config_id(
        self, client: AsyncInfluencerAIClient, training: Training, configs: dict[str, LoraConfigRecord]
    ) -> str:
        """The config of this name on the server: made, or changed where it was this batch that made it.

        Raises:
            ConflictError: there is another one of this name.
        """
        config = training.config
        found = configs.get(config.name)
        if found is None:
            made = await self.patiently(lambda: client.lora_configs.create(config))
            self.state.own_config(made.id)
            return made.id
        if found.config.to_wire() == config.to_wire():
            return found.id
        if found.id not in self.state.config_ids:
            raise ConflictError(
                f"The server has another config called '{config.name}' ({found.id}).",
                remedy="Give the training another `name`, or delete that config.",
            )
        changes: dict[str, Any] = {name: getattr(config, name) for name in type(config).model_fields}
        await self.patiently(lambda: client.lora_configs.update(found.id, **changes))
        return found.id


def _standing(checked: Checked, job: JobDetail) -> Checked:
    """What has become of a training whose job is there."""
    checked, result = replace(checked, job_id=job.id), job.result or {}
    if job.status == "completed":
        return replace(checked, standing="completed", result=result)
    if job.status == "failed":
        return replace(checked, standing="failed", error=str(result.get("error") or "The job failed."), resumes=True)
    return replace(checked, resumes=True)
