"""The TypeScript SDK as a user has it, packed and installed by pnpm, against a real server."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from influencerai.demo.characters import MODEL_ID
from tests.contract.reference import as_sent, example
from tests.documents import Block, read_blocks
from tests.serve.running import picture
from tests.servers import Server, serve
from tests.typescript.node import ROOT, SDK, Package, Project
from tests.worker.workplace import write_pictures

EXAMPLE = example("Usage Example", "").body
ERRORS = example("TypeScript Error Handling", "").body
CLIENT = "".join(EXAMPLE.partition("});\n")[:2])
"""The reference's import, and its lines that make the client."""

TAKEN_NAME = "taken-name.mts"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("typescript")]


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip() for _ in range(count)]


def test_what_users_write_has_the_right_types(project: Project) -> None:
    """The reference's lines, and what the documents show, with nothing but the types of a browser."""
    names = [project.write("example.mts", EXAMPLE), project.write("errors.mts", wrong_job()), TAKEN_NAME]
    project.write(TAKEN_NAME, taken_name())
    shown = [*document(), *document(SDK / "README.md")]
    names += [project.write(f"document-{number}.mts", block.body) for number, block in enumerate(shown)]
    assert len(names) >= 8
    of_a_browser = {"lib": ["ES2022", "DOM", "DOM.Iterable"], "types": []}
    assert project.check_types(*names, **of_a_browser, useUnknownInCatchVariables=False) == ""


def test_the_references_example_runs_unchanged(project: Project, api: Server) -> None:
    with project.started(project.write("example.mts", as_sent(EXAMPLE, api, {}))) as process:
        while not (found := api.ask("GET", "/jobs").document["data"]):
            assert process.poll() is None
            time.sleep(0.1)
        [job] = found
        for epoch in (12, 13):
            result = {"progress": {"currentEpoch": epoch, "totalEpochs": 20, "loss": 0.0234}}
            assert api.ask("PATCH", f"/jobs/{job['id']}", {"status": "running", "result": result}).status == 200
        assert lines(process, 3) == ["Epoch 0/20", "Epoch 12/20", "Epoch 13/20"]
        assert api.ask("PATCH", f"/jobs/{job['id']}", {"status": "completed", "result": {}}).status == 200
        assert lines(process, 2) == ["Training complete!", ""]
        assert process.wait(30) == 0
    [dataset] = api.ask("GET", "/datasets").document
    assert (dataset["path"], dataset["meta"]["triggerWord"]) == ("data/datasets/my-influencer", "ohwx")
    assert job["payload"]["datasetId"] == dataset["id"]


def test_the_references_errors(project: Project, api: Server) -> None:
    """As it stands, its body is empty; filled, it is a body of the right type that the server refuses."""
    _, said = project.run(project.write("empty-job.mts", as_sent(CLIENT + ERRORS, api, {})))
    assert said.startswith("Validation error: Validation failed\nField errors: {")
    assert "fieldErrors" in said
    assert "payload: [ 'Field required' ]" in said
    _, said = project.run(project.write("errors.mts", as_sent(wrong_job(), api, {})))
    assert "'payload.datasetId': [" in said
    _, said = project.run(project.write(TAKEN_NAME, as_sent(taken_name(), api, {})))
    assert said.endswith("Resource conflict: LoRA config with name 'Taken' already exists\n")


def wrong_job() -> str:
    draft = "{ type: 'lora-training', payload: { datasetId: 'x'.repeat(65) } }"
    return (CLIENT + ERRORS).replace("{ /* ... */ }", draft)


def taken_name() -> str:
    taken = "{ name: 'Taken', modelName: 'sd15', networkAlpha: 8 }"
    again = ERRORS.replace("{ /* ... */ }", taken).replace("jobs.create", "loraConfigs.create")
    return f"{CLIENT}await client.loraConfigs.create({taken});\n{again}"


def test_every_method(project: Project, api: Server) -> None:
    write_pictures_and_more(project.folder / "pictures")
    names = ("methods.mts", "browser.mts", "bridge.mts", "types.mts")
    assert project.check_types(*names, lib=["ES2023"], types=["node"]) == ""
    assert project.run("methods.mts", api.url) == ("Every method has done what it should.\n", "")
    script = (project.folder / "methods.mts").read_text("utf-8")
    for resource, source in (("datasets", "datasets"), ("loraConfigs", "lora-configs"), ("jobs", "jobs")):
        text = (project.package.folder / "dist" / f"{source}.d.ts").read_text("utf-8")
        methods = re.findall(r"^    (\w+)\(", text, re.MULTILINE)
        assert "list" in methods
        unused = [name for name in methods if name != "constructor" and f"client.{resource}.{name}(" not in script]
        assert unused == []


def write_pictures_and_more(folder: Path) -> None:
    """Folders of good pictures, of none, and of a broken one."""
    files: dict[str, bytes | str] = {name: picture(n) for n, name in enumerate(("b.png", "ü 1.png", "inner/c.png"))}
    files |= {"ü 1.txt": "ohwx, läuft", "README.txt": "no caption", ".hidden.png": "no image"}
    files |= {"empty/notes.txt": "nothing", "broken/broken.png": "no image"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / "nowhere.png").symlink_to("gone.png")


def test_a_browser_needs_no_disk(project: Project, api: Server) -> None:
    assert project.run("browser.mts", api.url, options=["--conditions=browser"]) == ("It needs no disk.\n", "")
    folder = project.folder / "node_modules" / "@influencerai" / "sdk" / "dist"
    of_node = {path.name for path in folder.glob("*.js") if "node:" in path.read_text("utf-8")}
    assert of_node == {"download.js", "folder.js", "part.js"}
    of_disk = re.compile(r"\./(download|folder|part)\.js")
    importers = {path.name for path in folder.glob("*.js") if of_disk.search(path.read_text("utf-8"))}
    assert importers == {"disk.js", "download.js"}


def test_the_package_holds_what_it_needs_and_nothing_else(project: Project) -> None:
    folder = project.folder / "node_modules" / "@influencerai" / "sdk"
    assert {path.name for path in folder.iterdir()} == {"package.json", "README.md", "dist"}
    assert {"".join(path.suffixes) for path in (folder / "dist").iterdir()} == {".js", ".d.ts"}
    assert (project.folder / "node_modules" / "@influencerai").is_dir()
    assert [path.name for path in (project.folder / "node_modules").iterdir() if path.name[0] not in ".@"] == []


def test_the_packages_own_tests(package: Package) -> None:
    said = package.npm("test", "--silent")
    assert re.search(r"pass [1-9]", said), said


@pytest.mark.campaign
def test_a_training_by_the_sdk(project: Project, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "mine", count=2)
    heard: list[dict[str, Any]] = []
    with serve(tmp_path / "root", runner="inline") as server, project.client(server.url) as client:
        dataset = client.call("datasets.create", {"kind": "lora-training", "path": "data/datasets/ava"})
        client.call("datasets.update", dataset["id"], {"meta": {"triggerWord": "ohwx"}})
        assert client.call("datasets.upload", dataset["id"], str(pictures))["status"] == "ready"
        draft = {"name": "Ava", "modelName": MODEL_ID, "resolution": 128, "epochs": 2, "networkDim": 4}
        config = client.call("loraConfigs.create", {**draft, "networkAlpha": 2})
        payload = {"datasetId": dataset["id"], "loraConfigId": config["id"]}
        assert client.call("jobs.dryRun", {"type": "lora-training", "payload": payload})["ok"]
        job = client.call("jobs.create", {"type": "lora-training", "payload": payload})
        waiting = {"onProgress": True, "timeout": 240_000}
        ended = client.call("jobs.waitForCompletion", job["id"], waiting, hear=heard.append)
        files = client.call("jobs.download", job["id"], {"to": str(tmp_path / "loras")})
        assert [metric["step"] for metric in client.call("jobs.metrics", job["id"])] == [1, 2, 3, 4]
        progress = [found["result"]["progress"] for found in heard]
        assert progress[0] == {"currentEpoch": 0, "totalEpochs": 2}
        assert (progress[-1]["currentEpoch"], progress[-1]["step"]) == (2, 4)
        assert [Path(file).name for file in files] == ended["result"]["checkpoints"]
        final = Path(files[-1]).read_bytes()
        assert final == (server.root / ended["result"]["loraPath"]).read_bytes()


def test_what_the_document_shows_runs(project: Project, api: Server) -> None:
    """What needs no worker."""
    blocks = [block for block in document() if block.not_run is None]
    assert len(blocks) >= 2
    for block in blocks:
        project.run(project.write("document.mts", as_sent(block.body, api, {})))


def document(path: Path = ROOT / "docs" / "typescript.md") -> list[Block]:
    return [block for block in read_blocks(path.read_text("utf-8")) if block.language == "typescript"]
