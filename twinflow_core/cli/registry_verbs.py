"""Verbs about what was made: promote, rollback, history, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinflow_core.cli.child import run_flow
from twinflow_core.cli.output import Json, find_root, print_document, print_table

Channel = Annotated[str, typer.Option(help="staging, production, or a channel of your own.")]
Version = Annotated[str, typer.Argument(help="A version or its beginning; without it, what staging serves.")]
Reason = Annotated[str, typer.Option(help="Why; it stays in the history.")]
Actor = Annotated[str, typer.Option(help="Who; your user name unless told.")]


def add_to(app: typer.Typer) -> None:
    """Register these verbs."""
    for verb in (promote, rollback, history, generate):
        app.command()(verb)


def promote(
    version: Version = "",
    to: Channel = "production",
    reason: Annotated[str, typer.Option(help="Why; without it, what the person said who approved it.")] = "",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Make a channel serve a judged version, the same bytes; where the policy says so, an approved one."""
    arguments = ["promote", "--channel", to, "--reason", reason, "--actor", actor, "--version", version]
    _run_promote_flow(arguments, as_json)


def rollback(
    reason: Reason,
    channel: Channel = "production",
    to: Annotated[str, typer.Option(help="A version that it served; without it, the one before.")] = "",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Make a channel serve what it served before."""
    arguments = ["rollback", "--channel", channel, "--reason", reason, "--actor", actor, "--version", to]
    _run_promote_flow(arguments, as_json)


def history(
    channel: Annotated[str, typer.Option(help="One channel; without it, all.")] = "", as_json: Json = False
) -> None:
    """Show what each channel served, when, by whom and why."""
    from twinflow_core.local.services import open_registry

    registry = open_registry(find_root())
    channels = [channel] if channel else list(dict.fromkeys(["staging", "production", *registry.channels()]))
    entries = {name: registry.history(name) for name in channels}
    if as_json:
        print_document(
            {name: [entry.model_dump(mode="json") for entry in each] for name, each in entries.items()}
        )
        return
    for name, each in entries.items():
        rows = [
            (
                entry.generation,
                f"{entry.at:%Y-%m-%d %H:%M}",
                entry.action,
                (entry.version or "")[:12],
                entry.actor,
                entry.reason,
            )
            for entry in each
        ]
        print_table(
            f"{name}{'' if rows else ': no history yet'}", ("#", "at (UTC)", "", "version", "by", "why"), rows
        )


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("image.png"),
    seed: Annotated[int, typer.Option(help="Same seed, same image.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Network evaluations.")] = 1,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT, one that the package draws at.")] = "",
    channel: Channel = "staging",
    version: Annotated[str, typer.Option(help="A version instead of what the channel serves.")] = "",
    as_json: Json = False,
) -> None:
    """Make an image with what was promoted, through ONNX Runtime."""
    from PIL import Image

    from twinflow_core.home import state_home
    from twinflow_core.local.services import open_registry
    from twinflow_core.registry.lookup import find_version, what_serves
    from twinflow_core.runtime.loaded_package import LoadedPackage

    root = find_root()
    registry = open_registry(root)
    chosen = find_version(registry, version) if version else what_serves(registry, channel)
    package = registry.fetch(chosen, state_home(root) / "cache" / "versions")
    pixels = LoadedPackage.from_folder(package).generate([prompt], seed, steps, size=size or None)[0]
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(out, format="PNG")
    if as_json:
        print_document({"image": str(out), "version": chosen, "seed": seed, "steps": steps})
    else:
        typer.echo(f"{out} (version {chosen[:12]}, seed {seed}, {steps} step{'s' if steps > 1 else ''})")


def _run_promote_flow(arguments: list[str], as_json: bool) -> None:
    from twinflow_core.local.services import up

    root = find_root()
    run_flow(root, "promote", arguments, up(root).environment(), as_json)
