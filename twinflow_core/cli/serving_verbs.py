"""The verb that serves: serve-model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinflow_core.cli.output import Json, find_root

if TYPE_CHECKING:
    from twinflow_core.runtime.channel_follower import ChannelFollower
    from twinflow_core.runtime.generator import Generator


def add_to(app: typer.Typer) -> None:
    """Register these verbs."""
    app.command()(serve_model)


def serve_model(
    channel: Annotated[str, typer.Option(help="Serve what this channel serves, and follow it.")] = "staging",
    folder: Annotated[
        Path | None, typer.Option(help="Serve this package folder instead; it is not followed.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="The model's name, to serve outside a clone from the server in AWS_ENDPOINT_URL_S3."
        ),
    ] = "",
    bucket: Annotated[str, typer.Option(help="Goes with --model.")] = "twinflow",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    provider: Annotated[str, typer.Option(help="auto, tensorrt, cuda or cpu.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Within an operator; 0 takes all cores.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Most images drawn at once.")] = 16,
    wait_ms: Annotated[float, typer.Option(min=0, help="How long a lone request waits for company.")] = 2.0,
    queue: Annotated[int, typer.Option(min=1, help="Requests in hand; more are told to come back.")] = 64,
    refresh_seconds: Annotated[
        float, typer.Option(min=0, help="How often to look at the channel; 0: never.")
    ] = 10.0,
    as_json: Json = False,
) -> None:
    """Serve images over HTTP, with a page to try them; a promotion takes over without a failed request."""
    import json

    from twinflow_core.runtime.generator import Generator
    from twinflow_core.service.app import Limits
    from twinflow_core.service.server import listen, serve

    listening = listen(host, port)
    if folder is not None:
        generator = Generator.from_folder(folder, provider, threads=threads, batch=batch)
    else:
        follower = _follower(channel, model, bucket)
        generator = Generator.following(follower, provider, threads, batch, refresh_seconds)

    def ready(url: str) -> None:
        described = _described(generator, url)
        typer.echo(json.dumps(described) if as_json else _sentence(described))

    serve(generator, Limits(batch, wait_ms / 1000, queue), listening, ready)


def _follower(channel: str, model: str, bucket: str) -> ChannelFollower:
    from twinflow_core.runtime.channel_follower import ChannelFollower, follow_channel

    if model:
        return follow_channel(channel, model, bucket)
    from twinflow_core.home import state_home
    from twinflow_core.local.services import open_registry

    root = find_root()
    return ChannelFollower(open_registry(root), channel, state_home(root) / "cache")


def _described(generator: Generator, url: str) -> dict[str, Any]:
    serving = generator.serving
    return {
        "url": url,
        "version": serving.release.version,
        "generation": serving.release.generation,
        "provider": serving.package.provider.name,
        "skipped": dict(serving.package.provider.skipped),
    }


def _sentence(described: dict[str, Any]) -> str:
    passed_over = "".join(f"\n  not {name}: {reason}" for name, reason in described["skipped"].items())
    return (
        f"{described['url']} serves version {described['version'][:12]} on {described['provider']}; "
        f"Ctrl-C stops it.{passed_over}"
    )
