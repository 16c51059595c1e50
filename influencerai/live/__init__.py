"""Live: what people see of a training while it goes on."""

from influencerai.live.view import LiveView

__all__ = ["LiveView"]
