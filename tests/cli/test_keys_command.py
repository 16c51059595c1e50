from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, json_lines


@pytest.fixture
def keys(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """The command, over a database of the test's own."""
    monkeypatch.setenv("INFLUENCERAI_DATABASE_URL", f"sqlite:///{tmp_path / 'keys.db'}")
    return lambda *arguments: invoke("keys", *arguments)


def test_a_key_is_shown_once_on_standard_output_alone(keys: Invoke) -> None:
    made = keys("create", "--tenant", "studio", "--name", "laptop")
    assert made.exit_code == 0
    secret = made.stdout.strip()
    assert secret.startswith("iak_")
    assert "studio" in made.stderr
    listed = keys("list").stdout
    assert secret[:12] in listed
    assert secret not in listed
    assert "laptop" in listed


def test_a_revoked_key_stays_in_the_list(keys: Invoke) -> None:
    key = json_lines(keys("create", "--worker", "--json").stdout)[-1]
    assert key["scope"] == "worker"
    assert key["tenantId"] is None
    assert keys("revoke", key["id"]).exit_code == 0
    (listed,) = json_lines(keys("list", "--json").stdout)[-1]["keys"]
    assert listed["id"] == key["id"]
    assert listed["revokedAt"] is not None
    assert "key" not in listed


def test_the_list_of_one_tenant_has_no_others(keys: Invoke) -> None:
    for tenant in ("one", "two"):
        keys("create", "--tenant", tenant)
    listed = json_lines(keys("list", "--tenant", "two", "--json").stdout)[-1]["keys"]
    assert [key["tenantId"] for key in listed] == ["two"]


@pytest.mark.parametrize("arguments", [
    (),
    ("--tenant", "a/b"),
    ("--tenant", ".."),
    ("--scope", "read"),
    ("--tenant", "a", "--metrics"),
    ("--tenant", "a", "--admin"),
    ("--worker", "--scope", "read"),
    ("--tenant", "a", "--expires", "soon"),
    ("--tenant", "a", "--expires", "0d"),
])  # fmt: skip
def test_a_key_has_one_scope_and_the_tenant_that_it_needs(keys: Invoke, arguments: tuple[str, ...]) -> None:
    assert keys("create", *arguments).exit_code == 2
    assert json_lines(keys("list", "--json").stdout)[-1]["keys"] == []


def test_an_unknown_key_cannot_be_revoked(keys: Invoke) -> None:
    result = keys("revoke", "nothing")
    assert result.exit_code == 1
    assert "API key nothing not found" in result.output


def test_keys_are_of_the_database_that_is_named(tmp_path: Path, invoke: Invoke) -> None:
    there = ("--database-url", f"sqlite:///{tmp_path / 'there.db'}")
    assert invoke("keys", "create", "--tenant", "studio", *there).exit_code == 0
    assert len(json_lines(invoke("keys", "list", "--json", *there).stdout)[-1]["keys"]) == 1
    assert json_lines(invoke("keys", "list", "--json", "--root", tmp_path / "elsewhere").stdout)[-1]["keys"] == []
    assert (tmp_path / "elsewhere" / ".influencerai").is_dir()


def test_scope_expiry_and_last_use_are_listed(keys: Invoke) -> None:
    assert keys("create", "--tenant", "studio", "--scope", "read", "--expires", "30d").exit_code == 0
    for flag in ("--worker", "--metrics", "--admin"):
        assert keys("create", flag).exit_code == 0
    assert keys("create", "--worker", "--tenant", "studio").exit_code == 0
    listed = json_lines(keys("list", "--json").stdout)[-1]["keys"]
    assert [(key["scope"], key["tenantId"]) for key in listed] == [
        ("read", "studio"), ("worker", None), ("metrics", None), ("admin", None), ("worker", "studio"),
    ]  # fmt: skip
    lifetime = datetime.fromisoformat(listed[0]["expiresAt"]) - datetime.fromisoformat(listed[0]["createdAt"])
    assert lifetime == timedelta(days=30)
    header, first, *_ = keys("list").stdout.splitlines()
    assert header.split() == ["key", "scope", "tenant", "state", "made", "expires", "last", "used", "name"]
    assert first.split()[1:4] == ["read", "studio", "active"]
    assert "never" in first


def test_a_key_is_revoked_by_its_first_characters(keys: Invoke) -> None:
    secret = keys("create", "--tenant", "studio").stdout.strip()
    assert keys("revoke", secret[:12]).exit_code == 0
    [key] = json_lines(keys("list", "--json").stdout)[-1]["keys"]
    assert key["state"] == "revoked"
