"""/jobs/:id/events, metrics and artifacts."""

from __future__ import annotations

import os
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from influencerai.domain.job import TERMINAL
from influencerai.domain.job_log import EventQuery, MetricQuery
from influencerai.errors import ValidationError
from influencerai.files import beneath
from influencerai.serve import event_source
from influencerai.serve.bodies import answer, answer_document, strict_route
from influencerai.serve.disconnection import while_connected
from influencerai.serve.documents import THUMBNAIL, Artifacts, EventPage, Metrics, Responses, errors
from influencerai.serve.errors import SENTENCES, plain_error
from influencerai.serve.principal import FileReader, Reader
from influencerai.service import Service

_EVENTS: Responses = {
    200: {
        "model": EventPage,
        "description": "A page of events; or the stream of them, with `Accept: text/event-stream`.",
        "content": {event_source.MEDIA_TYPE: {"schema": {"type": "string"}}},
    },
    204: {"description": "A stream was asked for, the job has ended, and nothing follows."},
}
_FILE: Responses = {
    200: {
        "description": "The file.",
        "content": {"application/octet-stream": {"schema": {"format": "binary", "type": "string"}}},
    },
    206: {"description": "The range asked for."},
    304: {"description": "The file is the one that If-None-Match names."},
}


class Download(FileResponse):
    """An open file, in ranges where they are asked for; one that cannot be given is refused in the one shape of errors.

    The file is opened anew by its descriptor, never by its name, and closed at the end of the answer.
    """

    def __init__(self, file: BinaryIO, **options: Any) -> None:
        descriptor = file.fileno()
        super().__init__(beneath.path_of(descriptor), stat_result=os.fstat(descriptor), **options)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: Message | None = None

        async def send_unless_refused(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = message
            elif refused is None:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)
        if refused is not None:
            status = refused["status"]
            sentence = SENTENCES[416] if status == 416 else "The header Range is no range of bytes"
            extent = Headers(raw=refused["headers"]).get("content-range")
            headers = {} if extent is None else {"content-range": extent}
            await plain_error(status, sentence, headers=headers)(scope, receive, send)


def job_log_routes(service: Service) -> APIRouter:
    """Routes over `service.job_log` and `service.event_streams`."""
    max_bytes = service.settings.max_body_kib * 1024
    router = APIRouter(prefix="/jobs/{id}", tags=["Jobs"], route_class=strict_route(max_bytes))
    log = service.job_log

    @router.get("/events", responses=_EVENTS | errors(400, 404))
    async def get_job_events(
        request: Request,
        tenant: Reader,
        id: str,
        query: Annotated[EventQuery, Query()],
        last_event_id: Annotated[str | None, Header(description="Where a stream was cut off.")] = None,
    ) -> Response:
        """Page through the events of a job, or follow them as a stream while they happen."""
        if event_source.MEDIA_TYPE not in request.headers.get("accept", ""):
            events, last = await log.events(tenant, id, query)
            return answer(EventPage(data=events, last_seq=last))
        after = query.after if last_event_id is None else _number(last_event_id)
        if (await service.jobs.get(tenant, id)).status in TERMINAL:
            rest, _ = await log.events(tenant, id, EventQuery(after=after, take=1))
            if not rest:
                return Response(status_code=204)  # by which a browser's EventSource knows not to come back
        service.event_streams.check_room(tenant)
        events_to_come = service.event_streams.follow(tenant, id, after=after)
        return StreamingResponse(
            event_source.encoded(events_to_come), media_type=event_source.MEDIA_TYPE, headers=event_source.HEADERS
        )

    @router.get("/metrics", response_model=Metrics, responses=errors(400, 404))
    async def get_job_metrics(tenant: Reader, id: str, query: Annotated[MetricQuery, Query()]) -> Response:
        """Get loss, learning rate and speed over the steps, thinned to about `points`."""
        figures = await log.metrics(tenant, id, query)
        return answer_document({"data": [item.to_wire() for item in figures]})

    @router.get("/artifacts", response_model=Artifacts, responses=errors(404))
    async def list_job_artifacts(tenant: Reader, id: str) -> Response:
        """List the files that the job has published."""
        return answer_document({"data": [item.to_wire() for item in await log.artifacts(tenant, id)]})

    @router.head("/artifacts/{name}", include_in_schema=False)
    @router.get("/artifacts/{name}", response_class=FileResponse, responses=_FILE | errors(400, 404, 416))
    async def download_job_artifact(
        tenant: FileReader,
        id: str,
        name: str,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Download a file; ranges and ETags work."""
        artifact, file = await log.artifact(tenant, id, name)
        etag = f'"{artifact.sha256}"'
        headers = {"etag": etag, "x-content-type-options": "nosniff"}
        if if_none_match and {etag, "*"} & {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}:
            file.close()
            return Response(status_code=304, headers=headers)
        media_type = "image/png" if artifact.kind == "sample" else "application/octet-stream"
        return Download(file, filename=artifact.name, media_type=media_type, headers=headers)

    @router.get("/artifacts/{name}/thumbnail", response_class=Response, responses=THUMBNAIL | errors(404))
    async def get_sample_thumbnail(request: Request, tenant: FileReader, id: str, name: str) -> Response:
        """Get a small picture of a sample that the job has drawn."""
        picture = await while_connected(request, log.thumbnail(tenant, id, name))
        return Response(picture, media_type="image/webp", headers={"cache-control": "private, max-age=3600"})

    return router


def _number(last_event_id: str) -> int:
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 9:
        raise ValidationError(field_errors={"Last-Event-ID": ["Input should be the number of an event"]})
    return int(last_event_id)
