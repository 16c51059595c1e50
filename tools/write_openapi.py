"""Write the API's document, from which the TypeScript SDK has its types: python tools/write_openapi.py

After it, `npm run generate` in sdk/typescript writes the types.
"""

from __future__ import annotations

import json
from pathlib import Path

from influencerai.serve.app import create_app
from influencerai.service import Service
from influencerai.settings import Settings

DOCUMENT = Path(__file__).parents[1] / "sdk" / "typescript" / "openapi.json"


def render() -> str:
    """The document as a development server returns it, independent of the environment."""
    service = Service(Settings(root=Path("/nowhere"), auth="development"), needs_worker=False)
    return json.dumps(create_app(service).openapi(), ensure_ascii=False, indent=2) + "\n"


def main() -> None:
    DOCUMENT.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
