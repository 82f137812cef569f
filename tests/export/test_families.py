"""Every family as graphs: what torch draws, whatever the batch, from texts to pixels; time is a constant to the bit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from tests.backbones.families import BUILDERS, RESOLUTION
from tests.backbones.tiny_flux2 import SHALLOW, build_tiny_flux2_klein, reading_shallow
from tests.backbones.tiny_text import t5_encoder, t5_tokenizer
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.export import precision as precisions
from twinflow_core.export import text_precision
from twinflow_core.export.compose import generator_model
from twinflow_core.export.cut import cut
from twinflow_core.export.families import FAMILIES
from twinflow_core.export.graphs import STOCK, TIME, TIME_VALUE, VELOCITY, MarkedDecoder
from twinflow_core.export.layout import write_configurations, write_graphs
from twinflow_core.export.onnx_model import EXAMPLE_BATCH
from twinflow_core.export.package import LOWEST_PSNR, describe_package
from twinflow_core.export.parity import measure_parity
from twinflow_core.export.pieces import trace
from twinflow_core.export.precision import Precision, weight_bytes
from twinflow_core.noise import image_noise
from twinflow_core.runtime.loaded_package import LoadedPackage, PromptEmbeddings
from twinflow_core.runtime.package import EMBEDS, MASK, TEXT_GRAPH
from twinflow_core.sampling.few_step import few_step_times, sample_few_steps

pytestmark = pytest.mark.slow
# Prompts of unlike lengths: the mask matters.
PROMPTS = ["a red circle", "", "three yellow squares above one blue triangle"]
TEXTS = [*PROMPTS, " Ein GRÖSSERER Stern ☆ 星\n", "word " * 600]
OPSET = 20
# Of latents that are some units wide; the issue allows 1e-4 of the range.
TOLERANCE = 5e-5
PARITY = 1e-4
# Of language models 16 wide every matrix is narrower than what keeps its weights.
TINY_NARROW = 8


class Traced:
    """A family's tiny pipeline, traced."""

    def __init__(self, backbone: Backbone, folder: Path) -> None:
        self.backbone, self.folder = backbone, folder
        self._pieces = trace(backbone, OPSET, lambda *_: None)
        self.graphs, self.decoder = self._pieces.denoiser, self._pieces.decoder
        self.conditioning = backbone.encode_prompts(PROMPTS)

    @cached_property
    def package(self) -> LoadedPackage:
        """The whole, for one evaluation, as it is served."""
        return self.with_texts_in("fp32")

    def with_texts_in(self, precision: Precision) -> LoadedPackage:
        """The same with text encoders in some precision."""
        folder = self.folder / precision
        folder.mkdir(parents=True)
        write_graphs(
            folder, self.backbone, self._pieces, [1], "fp32", lambda *_: None, text_precision=precision
        )
        for model in self._pieces.text.values():
            # Saved in float32 they refer to the package's file, which no other precision can be made of.
            ir.external_data.load_to_model(model)
        write_configurations(folder, self.backbone)
        manifest = describe_package(self.backbone, folder, [1], OPSET, "fp32", text_precision=precision)
        manifest.write(folder)
        return LoadedPackage.from_folder(folder, "cpu", threads=1)


@pytest.fixture(scope="module", params=BUILDERS)
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("family")
    with reading_shallow():
        if request.param == "flux2-klein":
            build_tiny_flux2_klein(folder / "pipeline", layers=SHALLOW)
        else:
            BUILDERS[request.param](folder / "pipeline")
        backbone = load_backbone(folder / "pipeline", RESOLUTION)
        if request.param == "sd3":
            add_t5(backbone)
        yield Traced(backbone, folder / "package")


def add_t5(backbone: Backbone) -> None:
    """SD3's third text encoder, which the tiny pipeline leaves out."""
    tokenizer = t5_tokenizer(256)
    width = backbone.pipeline.transformer.config.joint_attention_dim
    backbone.pipeline.register_modules(
        text_encoder_3=t5_encoder(tokenizer, width=width), tokenizer_3=tokenizer
    )


def opened(model: ir.Model) -> onnxruntime.InferenceSession:
    content = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def latents_as_images(model: ir.Model) -> ir.Model:
    """In place of a decoder: what goes in comes out."""
    shape = [axis if isinstance(axis, int) else str(axis) for axis in model.graph.inputs[0].shape]
    described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"], name="as_it_is")], "same", described[:1], described[1:]
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    )


def embeddings(traced: Traced, rows: int) -> dict[str, NDArray[np.generic]]:
    """The first prompts as the runtime gives them to a graph of fixed length."""
    parts = {name: part.numpy() for name, part in traced.conditioning[:rows].tensors().items()}
    wanted = next(value for value in traced.graphs.traced.graph.inputs if value.name == "prompt_embeds")
    return dict(PromptEmbeddings(parts).filled_up(int(wanted.shape[1])).parts)


def test_generators_draw_what_torch_draws(traced: Traced) -> None:
    velocity = traced.graphs.at_given_time()
    for steps in (1, 2, 4):
        times = few_step_times(steps)
        constants = traced.graphs.time_values(times)
        session = opened(generator_model(velocity, latents_as_images(velocity), constants, times, OPSET))
        for rows in (1, 3):
            noises = torch.randn(
                steps, rows, *traced.backbone.latent_shape, generator=torch.Generator().manual_seed(steps)
            )
            told = traced.conditioning[:rows]
            expected = sample_few_steps(
                lambda x_t, t, r, told=told: traced.backbone.velocity(x_t, t, r, told), noises
            )
            served = session.run(None, {"noises": noises.numpy(), **embeddings(traced, rows)})[0]
            np.testing.assert_allclose(served, expected, atol=TOLERANCE)


def test_folded_time_is_bit_exact_in_the_graph(traced: Traced) -> None:
    whole, folded = opened(traced.graphs.traced), opened(traced.graphs.at_given_time())
    rows = 3
    given = {
        "hidden_states": np.random.default_rng(0).standard_normal(
            (rows, *traced.backbone.latent_shape), np.float32
        ),
        **embeddings(traced, rows),
    }
    names = [each.name for each in whole.get_outputs()]
    for time in (1.0, 0.5):
        answers = dict(
            zip(names, whole.run(None, {**given, TIME: np.full(rows, time, np.float32)}), strict=True)
        )
        values = {name: value for name, value in answers.items() if name.startswith(TIME_VALUE)}
        np.testing.assert_array_equal(folded.run(None, {**given, **values})[0], answers[VELOCITY])


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_folded_time_is_bit_exact_in_torch(traced: Traced, steps: int) -> None:
    velocity, told = traced.backbone.velocity, traced.conditioning[:1]
    x_t = torch.randn(1, *traced.backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    times = few_step_times(steps)
    for time, values in zip(times, traced.graphs.time_values(times), strict=True):
        with torch.no_grad():
            unfolded = velocity(x_t, torch.tensor([time]), None, told)
            hooks = [
                _answering(
                    velocity.transformer.get_submodule(name.removeprefix(TIME_VALUE)), torch.tensor(value)
                )
                for name, value in values.items()
            ]
            # Whatever time is passed now, the modules that depend on it answer for the folded one.
            folded = velocity(x_t, torch.tensor([0.123]), None, told)
            for hook in hooks:
                hook.remove()
        assert torch.equal(folded, unfolded)


def _answering(module: nn.Module, value: torch.Tensor) -> torch.utils.hooks.RemovableHandle:
    return module.register_forward_hook(lambda *_: value)


def test_what_folds_is_what_the_family_says(traced: Traced) -> None:
    pattern = FAMILIES[traced.backbone.family].folds
    parameters = traced.backbone.pipeline.transformer.named_parameters()
    folding = sum(parameter.nbytes for name, parameter in parameters if re.match(pattern, name))
    whole = weight_bytes(cut(traced.graphs.traced, {}, {VELOCITY: VELOCITY}))
    saved = whole - weight_bytes(traced.graphs.at_given_time())
    # Beside the parameters, the frequencies of the sinusoids go.
    assert folding <= saved <= folding + 4096


def test_one_evaluation_in_the_transformers_own_words(traced: Traced) -> None:
    model = traced.graphs.at_any_time()
    session = opened(model)
    names = {each.name for each in session.get_inputs()}
    assert {"hidden_states", "timestep"} <= names
    assert [each.name for each in session.get_outputs()] == ["out_hidden_states"]
    if traced.backbone.family != "z-image":
        assert "encoder_hidden_states" in names


def test_decoders(traced: Traced) -> None:
    backbone, session = traced.backbone, opened(traced.decoder)
    latents = torch.randn(EXAMPLE_BATCH, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    for given in (latents[:1], torch.zeros(3, *backbone.latent_shape)):
        served = dict(zip(MarkedDecoder.outputs, session.run(None, {"latents": given.numpy()}), strict=True))
        assert all(np.isfinite(value).all() for value in served.values())
        np.testing.assert_allclose(served["images"], backbone.decode_latents(given), atol=TOLERANCE)
        np.testing.assert_allclose(
            np.clip(served[f"{STOCK}sample"].reshape(served["images"].shape) / 2 + 0.5, 0, 1),
            served["images"],
        )


def test_texts_become_what_the_pipeline_makes_of_them(traced: Traced) -> None:
    served = traced.package.encode(TEXTS).parts
    parts = {name: part.numpy() for name, part in traced.backbone.encode_prompts(TEXTS).tensors().items()}
    expected = PromptEmbeddings(parts).filled_up(served[EMBEDS].shape[1]).parts
    assert served.keys() == expected.keys()
    counts = expected[MASK] if MASK in expected else np.ones(served[EMBEDS].shape[:2], bool)
    for name, part in expected.items():
        assert served[name].shape == part.shape
        if name == MASK:
            np.testing.assert_array_equal(served[name], part)
            continue
        pair = (served[name], part) if name != EMBEDS else (served[name][counts], part[counts])
        np.testing.assert_allclose(*pair, rtol=0, atol=PARITY * float(np.ptp(part)))
    np.testing.assert_array_equal(served[EMBEDS][~counts], 0)


def test_texts_are_drawn_as_torch_draws_them(traced: Traced) -> None:
    parity = measure_parity(traced.backbone, traced.package)
    assert parity["finite"]
    assert parity["max_abs"] <= PARITY


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_texts_in_fewer_bits_take_less_room_and_are_drawn_alike(
    traced: Traced, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (precisions, text_precision):
        monkeypatch.setattr(module, "NARROW", TINY_NARROW)
    package = traced.with_texts_in(precision)
    noises = np.stack(
        [image_noise(0, str(row), 1, traced.backbone.latent_shape) for row in range(len(TEXTS))]
    )
    exact, found = (each.encode(TEXTS) for each in (traced.package, package))
    assert {name: (part.dtype, part.shape) for name, part in found.parts.items()} == {
        name: (part.dtype, part.shape) for name, part in exact.parts.items()
    }
    drawn, expected = package.render(noises, found), traced.package.render(noises, exact)
    assert -10 * np.log10(np.square(drawn - expected).mean()) >= LOWEST_PSNR
    assert package.manifest.text_precision == precision
    whole, smaller = (stored_in_encoders(traced.folder / name) for name in ("fp32", precision))
    assert smaller < 0.9 * whole
    # The text graph points into the encoders' files; what is its own has no weights.
    own, before = (stored_beside(traced.folder / name / TEXT_GRAPH) for name in (precision, "fp32"))
    assert own <= before


def stored_in_encoders(package: Path) -> int:
    """Bytes of the text encoders' weights."""
    return sum(stored_beside(graph) for graph in package.glob("text_encoder*/model.onnx"))


def stored_beside(graph: Path) -> int:
    """Bytes of the weights that one graph owns."""
    weights = graph.with_name(graph.name + "_data")
    return weights.stat().st_size if weights.exists() else 0
