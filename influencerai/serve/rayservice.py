"""The API as an application that others deploy: KubeRay by a RayService, `serve run` by hand.

It trains nothing; a dispatcher on the same database and root does, such as that of `influencerai serve`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from influencerai.errors import ValidationError
from influencerai.serve.ray_server import MAX_ONGOING_REQUESTS, Api
from influencerai.settings import Settings

_DRAIN_SECONDS = 10.0
"""Until a replica that has to go ends its event streams, whose readers come back to another one."""


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
    deployment = serve.deployment(
        name="Api",
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=_DRAIN_SECONDS,
        logging_config=LoggingConfig(log_level="ERROR", enable_access_log=False),  # requests are logged by the app
    )(serve.ingress()(Api))
    return deployment.bind(settings.to_document(), False)
