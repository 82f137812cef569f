"""Verbs by which people steer channels: approve, reject, hold, release. They need the bucket alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from twinflow_core.cli.output import Json, find_root, print_document
from twinflow_core.cli.registry_verbs import Actor, Channel, Reason, Version

if TYPE_CHECKING:
    from twinflow_core.registry.answers import Answer
    from twinflow_core.registry.channel import Entry
    from twinflow_core.registry.registry import Registry


def add_to(app: typer.Typer) -> None:
    """Register these verbs."""
    for verb in (approve, reject, hold, release):
        app.command()(verb)


def approve(
    reason: Reason,
    version: Version = "",
    channel: Channel = "production",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Record your yes to a judged version for a channel; `promote` then carries it out."""
    registry = _registry()
    chosen = _chosen(registry, version)
    _tell_answer(registry.approve(channel, chosen, _who(actor), reason), as_json)


def reject(
    reason: Reason,
    version: Version = "",
    channel: Channel = "production",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Record your no: the version is not promoted to the channel until somebody approves it."""
    registry = _registry()
    chosen = _chosen(registry, version)
    _tell_answer(registry.reject(channel, chosen, _who(actor), reason), as_json)
    if not as_json and registry.head(channel).version == chosen:
        typer.echo(f'{channel} serves it still: twinflow rollback --channel {channel} --reason "..."')


def hold(reason: Reason, channel: Channel = "production", actor: Actor = "", as_json: Json = False) -> None:
    """Stop promotions to a channel; what serves goes on serving, and rollback stays possible."""
    _tell_entry(channel, _registry().hold(channel, _who(actor), reason), as_json)


def release(
    reason: Reason, channel: Channel = "production", actor: Actor = "", as_json: Json = False
) -> None:
    """Allow promotions to a channel again."""
    _tell_entry(channel, _registry().release(channel, _who(actor), reason), as_json)


def _registry() -> Registry:
    from twinflow_core.local.services import open_registry

    return open_registry(find_root())


def _who(named: str) -> str:
    from twinflow_core.actor import actor

    return actor(named)


def _chosen(registry: Registry, text: str) -> str:
    from twinflow_core.registry.lookup import find_version, what_serves

    return find_version(registry, text) if text else what_serves(registry, "staging")


def _tell_answer(answer: Answer, as_json: bool) -> None:
    if as_json:
        print_document(answer.model_dump(mode="json"))
        return
    word = {"approve": "approved", "reject": "rejected"}[answer.answer]
    typer.echo(f"{answer.candidate[:12]} is {word} for {answer.channel} by {answer.actor}.")
    if answer.expires:
        told = f"twinflow promote {answer.candidate[:12]} --to {answer.channel}"
        typer.echo(f"Until {answer.expires:%Y-%m-%d %H:%M} UTC: {told}")


def _tell_entry(channel: str, entry: Entry, as_json: bool) -> None:
    if as_json:
        print_document(entry.model_dump(mode="json"))
        return
    serves = f"It serves {entry.version[:12]}." if entry.version else "It serves nothing yet."
    state = "held: nothing is promoted there" if entry.held else "released"
    typer.echo(f"{channel} is {state} (generation {entry.generation}). {serves}")
