"""Verbs about the registry's past and health: compare, verify, at, gc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinflow_core.cli.output import Json, find_root, print_document, print_table
from twinflow_core.errors import ExitCode

if TYPE_CHECKING:
    from twinflow_core.comparison import Difference

Side = Annotated[str, typer.Argument(help="A channel, a version, or a run.")]


def add_to(app: typer.Typer) -> None:
    """Register these verbs."""
    for verb in (compare, verify, at, gc):
        app.command()(verb)


def compare(a: Side, b: Side, as_json: Json = False) -> None:
    """Show what differs between two versions or runs: metrics, parameters, lineage, files."""
    from twinflow_core.comparison import differences, find_side
    from twinflow_core.local.services import open_registry

    root = find_root()
    registry = open_registry(root)
    left, right = find_side(root, registry, a), find_side(root, registry, b)
    parts = {
        name: differences(getattr(left, name), getattr(right, name))
        for name in ("metrics", "params", "lineage", "files")
    }
    if as_json:
        sides = [{"name": side.name, "run": side.run, "version": side.version} for side in (left, right)]
        print_document(
            {"a": sides[0], "b": sides[1], **{name: [asdict(one) for one in parts[name]] for name in parts}}
        )
        return
    for label, side in (("a", left), ("b", right)):
        typer.echo(
            f"{label}  {side.name:20} version {side.version[:12] or 'none'}  run {side.run or 'unknown'}"
        )
    for name, found in parts.items():
        _show_differences(name, found)


def verify(
    version: Annotated[str, typer.Argument(help="A version or its beginning; without it, everything.")] = "",
    as_json: Json = False,
) -> None:
    """Read the registry back: every file by SHA-256, every log without a gap, every record it names."""
    from twinflow_core.local.services import open_registry
    from twinflow_core.registry.audit import audit_registry, audit_version
    from twinflow_core.registry.lookup import find_version

    registry = open_registry(find_root())
    audit = audit_version(registry, find_version(registry, version)) if version else audit_registry(registry)
    if as_json:
        print_document(asdict(audit))
    else:
        counted = asdict(audit)
        problems = counted.pop("problems")
        typer.echo("Read back: " + ", ".join(f"{count} {name}" for name, count in counted.items() if count))
        for problem in problems:
            typer.echo(f"  {problem}")
        typer.echo(f"{len(problems)} problem(s)." if problems else "All is well.")
    raise typer.Exit(int(ExitCode.INFRASTRUCTURE if audit.problems else ExitCode.DONE))


def at(
    date: Annotated[str, typer.Argument(help="2026-01-31 for a day, 2026-01-31T15:00 for a moment; UTC.")],
    channel: Annotated[str, typer.Option(help="One channel; without it, all.")] = "",
    as_json: Json = False,
) -> None:
    """Show what each channel served on a day or at a moment."""
    from datetime import UTC, datetime

    from twinflow_core.local.services import open_registry
    from twinflow_core.registry.past import read_period, serving_between

    start, end = read_period(date, datetime.now(UTC))
    registry = open_registry(find_root())
    channels = [channel] if channel else registry.channels()
    served = {name: serving_between(registry.history(name), start, end) for name in channels}
    if as_json:
        print_document(
            {
                name: [
                    {
                        "version": span.version,
                        "since": span.since.isoformat(),
                        "until": span.until.isoformat() if span.until else None,
                        "entry": span.entry.model_dump(mode="json"),
                    }
                    for span in spans
                ]
                for name, spans in served.items()
            }
        )
        return
    rows = [
        (
            name,
            span.version[:12],
            f"{span.since:%Y-%m-%d %H:%M}",
            f"{span.until:%Y-%m-%d %H:%M}" if span.until else "now",
            span.entry.actor,
            span.entry.reason,
        )
        for name, spans in served.items()
        for span in spans
    ]
    print_table(
        f"served at {date}{'' if rows else ': nothing'}", ("", "version", "from", "to", "by", "why"), rows
    )


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove versions that no history, open decision or approval reaches; their files go a day later."""
    from twinflow_core.local.services import open_registry
    from twinflow_core.registry.garbage import collect

    done = collect(open_registry(find_root()), dry_run)
    if as_json:
        print_document({"dry_run": dry_run, **asdict(done)})
        return
    would = "would be " if dry_run else ""
    typer.echo(f"{len(done.kept)} version(s) stay.")
    for version in done.set_aside:
        typer.echo(f"  {version[:12]} {would}set aside: nothing reaches it")
    for version in done.restored:
        typer.echo(f"  {version[:12]} {would}put back: something reaches it again")
    typer.echo(f"{len(done.blobs)} file(s), {_size(done.bytes)}, {would}removed.")
    if done.set_aside:
        typer.echo(f"{_size(done.later_bytes)} more can go with `twinflow gc` a day from now.")


def _show_differences(name: str, found: Sequence[Difference]) -> None:
    rows = [
        (
            each.path,
            _short(each.a),
            _short(each.b),
            f"{each.change:+.4g}" if each.change is not None else "",
        )
        for each in found
    ]
    print_table(f"{name}{'' if rows else ': the same'}", ("", "a", "b", "b - a"), rows)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text[:12] if len(text) in (32, 64) else text


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
