"""`influencerai node`: make this machine a node of a cluster."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any

import click

from influencerai.cli.common import output_options
from influencerai.cli.outcome import print_json
from influencerai.errors import DependencyMissingError, ValidationError
from influencerai.settings import Settings


@click.group(short_help="Make this machine a node of a cluster.")
def node() -> None:
    """Machines that train together: one head, any number of others, one root folder that all of them see."""


@node.command(
    short_help="Start a node, until SIGTERM or Ctrl-C.",
    epilog="""\b
Examples:
  influencerai node start --head
  influencerai node start --head-address 10.0.0.1:6379
  RAY_ADDRESS=10.0.0.1:6379 influencerai serve --database-url postgresql://me@db/influencerai
\b
Every node needs the token in the head's ~/.ray/auth_token (RAY_AUTH_TOKEN), the same versions, the root under the same
path, and the base models; GET /cluster reports what each is missing.""",
)
@click.option("--head", is_flag=True, help="Start the head of a new cluster; it trains too.")
@click.option("--head-address", metavar="HOST:PORT", help="Join the cluster of this head.")
@click.option("--port", type=int, help="Of the head.  [default: 6379]")
@click.option("--host", help="Address by which the other nodes reach this one.")
@click.option("--name", help="What the node is called.  [default: the machine's name]")
@click.option("--cpus", type=click.IntRange(0), help="Cores that it offers.")
@click.option("--memory-gb", type=click.FloatRange(0, min_open=True), help="Memory that it offers.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs that it offers.")
@click.option("--gpu-memory-gb", type=click.FloatRange(0, min_open=True), help="Memory of each GPU.")
@click.option("--pretend-gpus", is_flag=True, help="Only count the GPUs and train on the CPU, to try a cluster out.")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0),
    default=120,
    show_default=True,
    help="Time for running jobs to save their state on SIGTERM.",
)
@output_options
def start(
    *, as_json: bool, head: bool, head_address: str | None, port: int | None, pretend_gpus: bool, **offered: Any
) -> None:
    """Start a node; what no option gives is detected."""
    if head == (head_address is not None):
        raise ValidationError("A node is a head or joins one.", remedy="Use --head, or --head-address HOST:PORT.")
    if port is not None and not head:
        raise ValidationError("--port is the head's.", remedy="Write the port into --head-address.")
    if find_spec("ray") is None:
        raise _without("ray")
    try:
        from influencerai.cluster.joining import (
            DEFAULT_PORT,
            NodeOffer,
            labels_of,
            lack_of,
            start_command,
            start_environment,
        )
    except ModuleNotFoundError as error:
        raise _without(error.name) from error
    offer = NodeOffer(pretends=pretend_gpus, **offered)
    if (lack := lack_of(offer)) is not None:
        click.echo(f"Warning: This node can take no training: {lack}.", err=True)
    command = start_command(offer, head_address=head_address, port=port or DEFAULT_PORT)
    environment = start_environment(offer, is_head=head)
    if as_json:
        print_json({"type": "starting", "headAddress": head_address, "labels": labels_of(offer)})
    elif head:
        address = f"{offer.host or 'ADDRESS'}:{port or DEFAULT_PORT}"
        click.echo(f"Others join with: influencerai node start --head-address {address}")
        click.echo("  (RAY_AUTH_TOKEN there is what ~/.ray/auth_token holds here)")
        click.echo(f"The API is served with: RAY_ADDRESS={address} influencerai serve --database-url postgresql://...")
    sys.stdout.flush()
    Settings.load().apply_files_mask()
    os.execve(command[0], command, environment)


def _without(package: str | None) -> DependencyMissingError:
    return DependencyMissingError(
        f"A node needs the package '{package}', which is not installed.",
        remedy="Run: pip install 'influencerai[train,serve]'.",
    )
