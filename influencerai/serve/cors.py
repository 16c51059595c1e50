"""CORS: which web pages of other origins may call the API; a refusal has the one shape of errors."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from influencerai.serve.errors import plain_error

_OF_THE_BODY = ("content-type", "content-length")


class Cors(CORSMiddleware):
    """Starlette's, whose refused preflights are plain text."""

    def preflight_response(self, request_headers: Headers) -> Response:
        found = super().preflight_response(request_headers)
        if found.status_code == 200:
            return found
        headers = {name: value for name, value in found.headers.items() if name not in _OF_THE_BODY}
        return plain_error(found.status_code, bytes(found.body).decode(), headers=headers)
