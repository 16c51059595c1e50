"""/datasets/:id/images."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from influencerai.domain.dataset import CaptionChange, DatasetImage, ImageQuery, UploadAnswer
from influencerai.domain.page import QueryBoolean
from influencerai.errors import ValidationError
from influencerai.serve.bodies import MOST_VALUES, answer, answer_page, has_too_many_values, strict_route
from influencerai.serve.disconnection import while_connected
from influencerai.serve.documents import THUMBNAIL, ImagePage, errors, page
from influencerai.serve.principal import FileReader, Owner, owner_of
from influencerai.serve.upload_request import upload_route
from influencerai.service import Service

_CAPTIONS_BYTES = 2**23
_FILES_PER_IMAGE = 4
"""As an upload takes them: captions, caches and the like beside each image."""


def dataset_image_routes(service: Service) -> APIRouter:
    """Routes over `service.dataset_images`."""
    images, settings = service.dataset_images, service.settings
    max_bytes = settings.max_body_kib * 1024
    router = APIRouter(prefix="/datasets/{id}/images", tags=["Datasets"], route_class=strict_route(max_bytes))

    async def limit(request: Request) -> int:
        """Bytes that the body may have; an upload to a dataset that is not the tenant's is refused unread."""
        files = await images.upload_limit(await owner_of(request), request.path_params["id"])
        return files + _CAPTIONS_BYTES

    async def upload_images(
        request: Request,
        tenant: Owner,
        id: str,
        files: Annotated[
            list[UploadFile],
            File(
                min_length=1,
                description="Images, captions and tables of captions, by their paths in the dataset, or zips of these.",
            ),
        ],
        captions: Annotated[str, Form(description='Captions as JSON: {"cat.png": "a cat"}.')] = "{}",
        replace: Annotated[QueryBoolean, Form(description="Replace files of the same name.")] = False,
    ) -> Response:
        """Put images into the dataset's folder: all of them, or none if anything is wrong with one.

        Files that are neither pictures nor captions are left out, and listed in the answer.
        """
        named = [(file.filename or "", file.file) for file in files]
        uploading = images.upload(tenant, id, named, captions=_captions(captions), replace=replace)
        report, dataset = await while_connected(request, uploading)
        fields = ("added", "replaced", "unchanged", "skipped", "renamed", "warnings")
        changed = {name: getattr(report, name) for name in fields}
        return answer(UploadAnswer(**changed, captions=report.caption_count, status=dataset.status))

    router.add_api_route(
        "",
        upload_images,
        methods=["POST"],
        response_model=UploadAnswer,
        responses=errors(400, 404, 409, 413),
        form_limits={
            "max_files": _FILES_PER_IMAGE * (settings.max_upload_files + 1),
            "max_fields": 10,
            "max_part_size": _CAPTIONS_BYTES,
        },
        route_class_override=upload_route(limit),
    )

    @router.get("", responses=page(ImagePage) | errors(400, 404))
    async def list_images(
        request: Request, tenant: FileReader, id: str, query: Annotated[ImageQuery, Query()]
    ) -> Response:
        """The dataset's images with their captions, as its folder was last looked at."""
        return answer_page(await while_connected(request, images.list(tenant, id, query)))

    @router.get("/{image:path}/thumbnail", response_class=Response, responses=THUMBNAIL | errors(404))
    async def get_thumbnail(request: Request, tenant: FileReader, id: str, image: str) -> Response:
        """A small picture of one image."""
        picture = await while_connected(request, images.thumbnail(tenant, id, image))
        return Response(picture, media_type="image/webp", headers={"cache-control": "private, max-age=3600"})

    @router.put("/{image:path}/caption", response_model=DatasetImage, responses=errors(400, 404, 413))
    async def write_caption(tenant: Owner, id: str, image: str, change: CaptionChange) -> Response:
        """Set the caption of one image; an empty one removes it."""
        return answer(await images.write_caption(tenant, id, image, change.caption))

    return router


def _captions(text: str) -> dict[str, str]:
    if has_too_many_values(text.encode(errors="replace")):
        raise ValidationError(field_errors={"captions": [f"Input should have at most {MOST_VALUES} values"]})
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(field_errors={"captions": ["Input should be a JSON object"]}) from error
    if not isinstance(found, dict) or not all(isinstance(caption, str) for caption in found.values()):
        raise ValidationError(field_errors={"captions": ["Input should be a JSON object of texts"]})
    return found
