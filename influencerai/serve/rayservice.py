"""The API as an application that others deploy: KubeRay by a RayService, `serve run` by hand.

It trains nothing; a dispatcher on the same database and root does, such as that of `influencerai serve`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.serve import Application

from influencerai.errors import ValidationError
from influencerai.serve.ray_server import api_deployment
from influencerai.settings import Settings


def app(arguments: Mapping[str, str]) -> Application:
    """Build the application; Serve calls this with the config's `args`.

    Args:
        arguments: settings by name, which win over the environment's.

    Raises:
        ValidationError: a setting cannot be used, or requests would not have to prove anything: where the API listens
            is said to Serve and not known here.
    """
    settings = Settings.load(**arguments)
    if settings.auth != "production":
        raise ValidationError(
            "Development mode believes every request, and this API may be reached from elsewhere.",
            remedy="Set INFLUENCERAI_AUTH=production.",
        )
    return api_deployment().bind(settings.to_document(), False)
