"""A batch on a server: datasets and configs made known to it, dry runs, and then a few jobs at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from influencerai.batch.check import Checked
from influencerai.batch.remote_datasets import OF_THE_SERVER, BatchDatasets, Pictures
from influencerai.batch.state import BatchState, StoredTraining, digest
from influencerai.batch.trainings import Training
from influencerai.client import AsyncInfluencerAIClient
from influencerai.domain import LoraConfig
from influencerai.domain.dataset import Dataset
from influencerai.domain.job import TERMINAL, JobDetail
from influencerai.domain.lora_config_record import LoraConfigRecord
from influencerai.errors import ConflictError, InfluencerAIError, NotFoundError, TooManyError

T = TypeVar("T")
_NOT_TRAINED = frozenset({"description", "isDefault"})
"""Fields of a config that others may change while the batch runs."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """The dataset and configuration that a training is submitted with."""

    dataset_id: str
    config_id: str
    config: LoraConfig
    entry: StoredTraining
    earlier_job_id: str | None = None
    """Of what was trained under this name before."""
    ends_earlier_job: bool = False
    """Whether that one is active."""

    @property
    def key(self) -> str:
        """By which the server knows this submission again, whenever its answer was lost."""
        former = self.entry.job_id or self.earlier_job_id
        return f"batch-{digest([self.entry.identity, self.dataset_id, self.config_id, former])[:40]}"


class BatchServer:
    """One tenant of a server, as a batch uses it.

    Args:
        url: of the server.
        tenant: whose jobs they are.
        api_key: or JWT, where the server wants one.
        state: what earlier calls have left.
        root: of relative folders here.
        upload: whether pictures go from here to the server.
        dry_run: leave datasets that were there before as they are.
        is_sound: whether the file itself is right; else nothing is uploaded.
        say: called with texts for the user.
    """

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
        dry_run: bool = False,
        is_sound: bool = True,
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
        self._dry_run = dry_run
        self._is_sound = is_sound

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncInfluencerAIClient]:
        """A client of its own for each event loop."""
        async with AsyncInfluencerAIClient(
            self._url, tenant_id=self._tenant, api_key=self._api_key, on_warning=lambda text: None
        ) as opened:
            yield opened

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, after as many waits as the server asks for."""
        while True:
            try:
                return await ask()
            except TooManyError as error:
                self.say(f"The server asks to wait {error.retry_after} seconds: {error.message}.")
                await asyncio.sleep(error.retry_after)

    async def check(self, trainings: Sequence[Training]) -> list[Checked]:
        """Each training with what the server's dry run finds, or with the job that an earlier call has submitted.

        Datasets and configs that the server does not know are made; no job is. Pictures are uploaded only when all
        is right that can be checked without them.

        Raises:
            UnreachableError: the server does not answer.
            AuthenticationError, PermissionDeniedError: it refuses the credential.
        """
        async with self.client() as client:
            known = [found async for found in client.datasets.list(sort_order="asc")]
            configs = {found.name: found async for found in client.lora_configs.list()}
            self._enter((*known, *configs.values()))
            datasets = BatchDatasets(
                client,
                patiently=self.patiently,
                state=self.state,
                root=self._root,
                upload=self._upload,
                dry_run=self._dry_run,
            )
            is_usable = await datasets.look(trainings, known)
            is_free = not any(self._conflict(training, configs) for training in trainings)
            may_upload = self._is_sound and is_usable and is_free
            pictures: dict[str, Pictures] = {}
            checked = []
            for training in trainings:
                if training.dataset not in pictures:
                    pictures[training.dataset] = await datasets.pictures(training, may_upload=may_upload)
                checked.append(await self._check(client, training, pictures[training.dataset], configs))
        return checked

    async def confirm_config(self, client: AsyncInfluencerAIClient, ticket: Ticket) -> None:
        """See that the server's config is still what was checked, which may be hours ago.

        Raises:
            ConflictError: it is not.
            NotFoundError: it was deleted.
        """
        found = await self.patiently(lambda: client.lora_configs.get(ticket.config_id))
        if _trained(found.config) != _trained(ticket.config):
            raise ConflictError(
                f"The config '{found.name}' ({found.id}) was changed on the server after it was checked.",
                remedy="The same command checks it again.",
            )

    def _enter(self, records: Iterable[Dataset | LoraConfigRecord]) -> None:
        """Use the state of the tenant that the server assigns to the credential."""
        tenant = self._tenant or next((record.tenant_id for record in records), None)
        if tenant is not None:
            self.state.enter(tenant)

    async def _check(
        self,
        client: AsyncInfluencerAIClient,
        training: Training,
        pictures: Pictures,
        configs: dict[str, LoraConfigRecord],
    ) -> Checked:
        if pictures.error:
            return Checked(training=training, problems=(pictures.error,))
        if not pictures.id:
            conflict = self._conflict(training, configs)
            return Checked(training=training, problems=() if conflict is None else (str(conflict),))
        config = {name: value for name, value in training.config.to_wire().items() if name != "description"}
        entry = self.state.get(training.name, digest([config, pictures.id, pictures.seen]))
        said = (pictures.warning,) if pictures.warning else ()
        checked = Checked(training=training, identity=entry.identity, warnings=said)
        if job := await self._job(client, entry):
            checked = _standing(checked, job)
            if checked.standing == "completed":
                return checked
        try:
            config_id = await self._config_id(client, training, configs)
            ticket = Ticket(dataset_id=pictures.id, config_id=config_id, config=training.config, entry=entry)
            if job is None and (earlier := self.state.earlier_job(training.name, entry.identity)):
                ticket = replace(
                    ticket, earlier_job_id=earlier, ends_earlier_job=await self._is_active(client, earlier)
                )
            self.tickets[training.name] = ticket
            if job:
                return checked
            report = await self.patiently(lambda: client.jobs.dry_run(dataset_id=pictures.id, lora_config_id=config_id))
        except OF_THE_SERVER:
            raise
        except InfluencerAIError as error:
            return replace(checked, problems=(str(error),))
        if ticket.ends_earlier_job:
            former = f"Its job {ticket.earlier_job_id}, of what the file or the folder held before, is active"
            text = f"{former}: it is cancelled when the new one is submitted."
            checked = replace(checked, warnings=(*checked.warnings, text))
        return replace(
            checked,
            problems=tuple(map(str, report.get("errors", ()))),
            warnings=(*checked.warnings, *map(str, report.get("warnings", ()))),
            steps=(report.get("plan") or {}).get("totalSteps"),
            seconds=(report.get("time") or {}).get("seconds"),
        )

    async def _job(self, client: AsyncInfluencerAIClient, entry: StoredTraining) -> JobDetail | None:
        """The job that an earlier call has submitted, where it is still there."""
        return None if entry.job_id is None else await self._found(client, entry.job_id)

    async def _is_active(self, client: AsyncInfluencerAIClient, job_id: str) -> bool:
        job = await self._found(client, job_id)
        return job is not None and job.status not in TERMINAL

    async def _found(self, client: AsyncInfluencerAIClient, job_id: str) -> JobDetail | None:
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
            self._enter([made])
            self.state.own_config(made.id)
            return made.id
        if found.config.to_wire() == config.to_wire():
            return found.id
        if conflict := self._conflict(training, configs):
            raise conflict
        changes: dict[str, Any] = {name: getattr(config, name) for name in type(config).model_fields}
        await self.patiently(lambda: client.lora_configs.update(found.id, **changes))
        return found.id

    def _conflict(self, training: Training, configs: Mapping[str, LoraConfigRecord]) -> ConflictError | None:
        """What forbids to change the config of the training's name: it is another one, and not this batch's."""
        found = configs.get(training.config.name)
        if found is None or found.id in self.state.config_ids or found.config.to_wire() == training.config.to_wire():
            return None
        return ConflictError(
            f"The server has another config called '{found.name}' ({found.id}).",
            remedy="Give the training another `name`, or delete that config.",
        )


def _trained(config: LoraConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_wire().items() if name not in _NOT_TRAINED}


def _standing(checked: Checked, job: JobDetail) -> Checked:
    """The outcome of a training whose job exists."""
    checked, result = replace(checked, job_id=job.id), job.result or {}
    if job.status == "completed":
        return replace(checked, standing="completed", result=result)
    if job.status == "failed":
        return replace(checked, standing="failed", error=str(result.get("error") or "The job failed."), resumes=True)
    return replace(checked, resumes=True)
