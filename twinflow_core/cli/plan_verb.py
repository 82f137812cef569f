"""The verb `plan`: what a training will need, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from twinflow_core.cli.output import Json, find_root, print_document, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from twinflow_core.params import BaseParams
    from twinflow_core.plan.encode_needs import EncodeNeeds
    from twinflow_core.plan.named_models import PlannedModel
    from twinflow_core.plan.plan import Outlook, Plan

GPU = "h100-80"


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(plan)


def plan(
    model: Annotated[
        str, typer.Option(help="A published model by name, in place of the base in params.yaml.")
    ] = "",
    gpu: Annotated[str, typer.Option(help="The GPU of each process.")] = GPU,
    memory: Annotated[str, typer.Option(help="Its memory, like 80GiB, where it has no name here.")] = "",
    tflops: Annotated[float, typer.Option(help="Its bfloat16 peak, where it has no name here.", min=0)] = 0.0,
    processes: Annotated[
        int, typer.Option(help="How many GPUs train together, in place of finetune.launch.", min=0)
    ] = 0,
    resolution: Annotated[
        int,
        typer.Option(
            help="Side of square images, in pixels, in place of data.resolution or the largest of data.buckets.",
            min=0,
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Say whether a training fits, how long it takes and what it costs, before anything runs."""
    from twinflow_core.image_size import ImageSize
    from twinflow_core.params import PARAMS_FILE, load_params
    from twinflow_core.plan.document import plan_document
    from twinflow_core.plan.encode_needs import encode_needs
    from twinflow_core.plan.gpus import find_gpu
    from twinflow_core.plan.named_models import named_model
    from twinflow_core.plan.plan import make_plan
    from twinflow_core.plan.setting import setting_of

    root = find_root()
    params = load_params(root / PARAMS_FILE)
    found = named_model(model) if model else _own_base(params.base, root)
    setting = setting_of(params.finetune, processes)
    side = resolution or found.resolution
    size = ImageSize(side, side) if side else params.data.largest_size
    made = make_plan(found, params.finetune, setting, find_gpu(gpu, memory, tflops), size)
    encode = encode_needs(found, made.parameters.transformer, params.encode.batch_size, size)
    if as_json:
        print_document(plan_document(made, encode))
    else:
        _show(made, encode)


def _own_base(base: BaseParams, root: Path) -> PlannedModel:
    from twinflow_core.hub.pinned import pinned_model
    from twinflow_core.plan.named_models import model_in, model_on_hub

    if base.hub is not None and base.revision is not None:
        return model_on_hub(pinned_model(base.hub, base.revision))
    return model_in(root / base.folder)


def _show(plan: Plan, encode: EncodeNeeds | None) -> None:
    from twinflow_core.plan.document import ASSUMED, COMPUTED
    from twinflow_core.plan.gpus import GIB

    numbers = plan.parameters
    typer.echo(
        f"{plan.model.name} ({plan.model.class_name}): {numbers.transformer / 1e9:.2f} B parameters; "
        f"{plan.size} pixels, {plan.tokens} text tokens; {plan.gpu.name} with {plan.gpu.memory / GIB:.1f} GiB\n"
    )
    columns = [("as asked", plan.asked)]
    if plan.cheapest is not None and plan.cheapest is not plan.asked:
        columns.append(("cheapest that fits", plan.cheapest))
    if plan.more_gpus is not None:
        columns.append(("on more GPUs", plan.more_gpus))
    rows = [_rows(outlook, plan) for _, outlook in columns]
    print_table(
        "", ["", *(title for title, _ in columns)], [(name, *(row[name] for row in rows)) for name in rows[0]]
    )
    if plan.cheapest is None:
        typer.echo("\nNothing was found that fits on so many GPUs of this kind.")
    if encode is not None:
        _show_encode(encode, plan)
    typer.echo(f"\nComputed: {COMPUTED}\nAssumed: {ASSUMED}\nMeasured on a GPU: nothing.")


def _show_encode(needs: EncodeNeeds, plan: Plan) -> None:
    from twinflow_core.plan.gpus import GIB

    sizes = ", ".join(f"{name} {number / 1e9:.2f} B" for name, number in needs.parameters.items())
    most = needs.largest_batch(plan.gpu.memory)
    room = f"at most {most} rows at once fit" if most else "it does not fit on this GPU"
    typer.echo(
        f"\nencode ({sizes}): {needs.total / GIB:.2f} GiB with encode.batch_size {needs.batch_size}, of which "
        f"weights {needs.weights / GIB:.2f} GiB and {needs.largest} {needs.activations / GIB:.2f} GiB; {room}. "
        f"Each process that loads the pipeline takes {needs.host / GIB:.1f} GiB of the machine's memory."
    )


def _rows(outlook: Outlook, plan: Plan) -> dict[str, str]:
    from twinflow_core.plan.document import setting_words
    from twinflow_core.plan.gpus import GIB

    memory, duration = outlook.memory, outlook.duration
    parts = {f"  {name}": f"{size / GIB:.2f} GiB" for name, size in memory.parts().items() if size}
    names = ("weights", "optimizer", "average", "base", "gradients", "activations", "gathered", "other")
    return {
        "setting": setting_words(outlook.setting),
        "trainable": f"{outlook.trainable / 1e6:,.1f} M",
        "memory a GPU": f"{memory.total / GIB:.2f} GiB, highest in {memory.phase}",
        **{f"  {name}": parts.get(f"  {name}", "-") for name in names},
        "fits": "yes" if outlook.fits else "no",
        "CPU memory for moments": f"{memory.host / GIB:.2f} GiB" if memory.host else "-",
        "images a second": _range(duration.images_per_second),
        "hours": _range(duration.hours[::-1]),
        "evaluations a row": f"{duration.equivalents_a_row:.2f}",
        "evaluations in all": f"{duration.equivalents:.3g}",
    }


def _range(pair: tuple[float, ...]) -> str:
    return f"{pair[0]:.3g} to {pair[1]:.3g}"
