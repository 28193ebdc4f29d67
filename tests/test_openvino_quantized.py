"""Quantized Graphs in OpenVINO: computed in integers, within a step of the golden, read back with their integers."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import ops
from edgecnn.errors import EdgeCNNError, InputFileError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, to_layout
from edgecnn.registry import load
from edgecnn.shapes import Shape
from tests.cut_nodes import alone
from tests.graphs import image_graph, transposed
from tests.mutations import mutated
from tests.quantized_graphs import GRAPHS, dense, quantized, stored_values, weight_only

openvino = pytest.importorskip("openvino")

DYNAMIC = tuple(name for name in GRAPHS if name.endswith("_dynamic_range"))
WEIGHT_ONLY = tuple(name for name in GRAPHS if name.endswith("_weight_only"))
REFUSED = {
    **dict.fromkeys(DYNAMIC, "activations of calibrated ranges"),
    "pad_with_value": "a whole number to pad integers with",
}
UNLOADED = ("requantize_int16_to_int8",)
"""The CPU plug-in has no int16 for inputs that a FakeQuantize reads at once."""

WRITTEN = [name for name in GRAPHS if name not in (*REFUSED, *UNLOADED)]


def outside(values: Array) -> Array:
    return np.ascontiguousarray(to_layout(values, "NCHW" if values.ndim >= 4 else None))


def compiled(graph: Graph, path: Path) -> tuple[Any, Counter[tuple[str, str]]]:
    """Write a Graph and return what OpenVINO made of it: the model, and how often it has which (layer, precision)."""
    load("converters", "openvino").write(graph, path)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    infos = [node.rt_info for node in model.get_runtime_model().get_ops()]
    return model, Counter(
        (each["layerType"].astype(str), each["runtimePrecision"].astype(str)) for each in infos if "layerType" in each
    )


def run(model: Any, inputs: Mapping[str, Array]) -> list[Array]:
    return list(model({name: outside(value) for name, value in inputs.items()}).values())


@pytest.mark.parametrize(
    "name", [name for name in WRITTEN if name not in WEIGHT_ONLY and not name.startswith("mobile_")]
)
def test_each_operator_is_within_a_step_of_the_golden(name: str, tmp_path: Path) -> None:
    near, total = 0, 0
    for graph, inputs, outputs in alone(GRAPHS[name]):
        model, _ = compiled(graph, tmp_path / "model.xml")
        for each, wanted in zip(run(model, inputs), map(outside, outputs.values()), strict=True):
            assert each.dtype == wanted.dtype
            if wanted.dtype.kind == "f":
                np.testing.assert_allclose(each, wanted, atol=1e-5)
                continue
            steps = np.abs(each.astype(np.int64) - wanted)
            near, total = near + int(np.sum(steps <= 1)), total + steps.size
    assert near >= 0.999 * total


@pytest.mark.parametrize("name", ["conv", "conv_relu6", "conv_depthwise", "conv_grouped", "conv_pointwise"])
def test_convolutions_compute_in_integers(name: str, tmp_path: Path) -> None:
    model, kinds = compiled(GRAPHS[name], tmp_path / "model.xml")
    assert {kind: times for kind, times in kinds.items() if kind[0] == "Convolution"} == {("Convolution", "u8"): 1}
    infos = [each.rt_info for each in model.get_runtime_model().get_ops()]
    layers = [info for info in infos if info["layerType"].astype(str) == "Convolution"]
    (kernel,) = [info["primitiveType"].astype(str) for info in layers]
    assert kernel.upper().endswith("_I8")  # the precision alone is told of a float kernel too


def test_a_whole_network_computes_in_integers(tmp_path: Path) -> None:
    graph = GRAPHS["mobile_with_float_ports"]
    model, kinds = compiled(graph, tmp_path / "model.xml")
    precisions = {kind: kinds[kind] for kind in kinds if kind[0] in ("Convolution", "FullyConnected", "Reduce")}
    assert precisions == {("Convolution", "u8"): 8, ("FullyConnected", "u8"): 1, ("Reduce", "u8"): 1}
    inputs = stored_values(graph)
    wanted = execute(graph, inputs)["result"]
    (found,) = run(model, inputs)
    step = next(graph.tensors[n.inputs[0]].quantization for n in graph.nodes if n.kind == "Dequantize")
    assert step is not None
    # A residual Add is computed without rounding in between: see ARCHITECTURE, section 4.
    assert np.abs(found - wanted).max() <= 2.01 * step.scale[0]


@pytest.mark.parametrize("name", WEIGHT_ONLY)
def test_weights_alone_are_stored_as_bytes(name: str, tmp_path: Path) -> None:
    check_weights_alone(GRAPHS[name], tmp_path)


def test_dense_layers_of_stored_bytes_do_not_round_their_inputs(tmp_path: Path) -> None:
    """Left alone, the CPU plug-in does where a layer has 64 inputs and more, and misses by 0.4 % of the range."""
    check_weights_alone(weight_only(image_graph(dense(features=96), (2, 256))), tmp_path)


def check_weights_alone(graph: Graph, tmp_path: Path) -> None:
    inputs = stored_values(graph)
    model, _ = compiled(graph, tmp_path / "model.xml")
    np.testing.assert_allclose(run(model, inputs)[0], outside(execute(graph, inputs)["result"]), atol=1e-5)
    kernels = [
        t for t in load("converters", "openvino").read(tmp_path / "model.xml").tensors.values() if t.quantization
    ]
    assert [tensor.stored_dtype for tensor in kernels] == ["int8"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_openvino_cannot_compute_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"^y: openvino: {REFUSED[name]}.*Choose .*--to "):
        load("converters", "openvino").write(GRAPHS[name], tmp_path / "model.xml")


def read_back(graph: Graph, path: Path) -> Graph:
    door = load("converters", "openvino")
    door.write(graph, path)
    found: Graph = door.read(path)
    return found


def in_layout_of(values: Array, shape: Shape) -> Array:
    """Return values as a Graph takes them that may hold a picture channels first, where nothing says otherwise."""
    return values if values.shape[1:] == tuple(shape[1:]) else np.moveaxis(values, -1, 1)


@pytest.mark.parametrize("name", [*WRITTEN, *UNLOADED])
def test_reading_back_gives_the_integers(name: str, tmp_path: Path) -> None:
    graph = GRAPHS[name]
    again = read_back(graph, tmp_path / "model.xml")
    assert again.is_quantized
    inputs = stored_values(graph)
    wanted = execute(graph, inputs)["result"]
    fed = {"image": in_layout_of(inputs["image"], again.tensors[again.inputs[0].tensor].shape)}
    found = execute(again, fed)["result"]
    found = found if found.shape == wanted.shape else np.moveaxis(found, 1, -1)
    given = [t.quantization.scale[0] for t in graph.tensors.values() if t.quantization and not t.is_constant]
    # The ends of a range are stated in float32, which moves halves.
    assert np.abs(found - wanted).max() <= 1.01 * max(given, default=1e-6)
    assert np.mean(np.abs(found - wanted) > 1e-5) <= (0.3 if name.startswith("mobile") else 0.005)
    for before, after in zip((*graph.inputs, *graph.outputs), (*again.inputs, *again.outputs), strict=True):
        assert again.tensors[after.tensor].stored_dtype == graph.tensors[before.tensor].stored_dtype


@pytest.mark.parametrize("name", ["conv", "conv_depthwise", "conv_grouped", "conv_transpose", "dense", "conv_int16"])
def test_kernels_and_biases_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    graph, again = GRAPHS[name], read_back(GRAPHS[name], tmp_path / "model.xml")
    (before,), (after,) = graph.nodes, again.nodes
    assert before.op == after.op
    for old, new in zip(before.inputs[1:], after.inputs[1:], strict=True):
        np.testing.assert_array_equal(graph.tensors[old].data, again.tensors[new].data)
        assert again.tensors[new].quantization == graph.tensors[old].quantization


def test_scales_along_two_axes(tmp_path: Path) -> None:
    """A grouped transposed convolution's output channels lie on two axes of OpenVINO's kernel."""
    graph = quantized(image_graph(transposed((2, 2), (2, 2), ((0, 0), (0, 0)), groups=2, out_channels=6)))
    inputs = stored_values(graph)
    model, _ = compiled(graph, tmp_path / "model.xml")
    wanted = execute(graph, inputs, stored=True)["result"]
    assert np.abs(run(model, inputs)[0].astype(int) - outside(wanted)).max() <= 1
    again = load("converters", "openvino").read(tmp_path / "model.xml")
    np.testing.assert_array_equal(execute(again, inputs, stored=True)["result"], wanted)


def edited(graph: Graph, path: Path, changes: dict[str, str]) -> Path:
    load("converters", "openvino").write(graph, path)
    text = path.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("levels", ["255", "17"])
def test_a_fake_quantize_off_the_grid_is_read_by_its_definition(levels: str, tmp_path: Path) -> None:
    path = edited(GRAPHS["mobile_with_float_ports"], tmp_path / "model.xml", {'levels="256"': f'levels="{levels}"'})
    graph = load("converters", "openvino").read(path)
    assert "Round" in graph.kinds()
    assert not graph.kinds()["Opaque"]
    inputs = stored_values(GRAPHS["mobile_with_float_ports"])
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = execute(graph, inputs)["result"]
    assert np.abs(run(model, inputs)[0] - found).max() <= 0.05 * np.ptp(found)


@pytest.mark.parametrize("levels", ["0", "1", "-3", "99999999999"])
def test_levels_that_cannot_be_counted_leave_an_unknown_layer(levels: str, tmp_path: Path) -> None:
    path = edited(GRAPHS["quantize_dequantize"], tmp_path / "model.xml", {'levels="256"': f'levels="{levels}"'})
    assert load("converters", "openvino").read(path).kinds()["Opaque"] >= 1


def test_levels_that_are_no_number_are_an_error(tmp_path: Path) -> None:
    path = edited(GRAPHS["quantize_dequantize"], tmp_path / "model.xml", {'levels="256"': 'levels="many"'})
    with pytest.raises(InputFileError, match=r"levels: whole numbers were wanted; got 'many'$"):
        load("converters", "openvino").read(path)


def test_bytes_of_scales_that_are_none_are_read_as_numbers(tmp_path: Path) -> None:
    """A channel whose scale is 0 holds zeros; nothing that stands for integers, then."""
    graph = GRAPHS["conv_weight_only"]
    path = tmp_path / "model.xml"
    load("converters", "openvino").write(graph, path)
    kernel = graph.tensors["kernel"].quantization
    assert kernel is not None
    wanted, content = np.asarray(kernel.scale, np.float32).tobytes(), path.with_suffix(".bin").read_bytes()
    assert content.count(wanted) == 1
    path.with_suffix(".bin").write_bytes(
        content.replace(wanted, np.asarray([0, *kernel.scale[1:]], np.float32).tobytes())
    )
    again = load("converters", "openvino").read(path)
    assert not again.is_quantized
    inputs = stored_values(graph)
    found, whole = execute(again, inputs)["result"], execute(graph, inputs)["result"]
    np.testing.assert_allclose(found[..., 1:], whole[..., 1:], rtol=1e-6)
    assert np.ptp(found[..., 0]) == 0


def test_a_kernel_of_size_1_that_is_widened_keeps_its_zero_point(tmp_path: Path) -> None:
    """OpenVINO passes by the padding of a strided kernel of size 1, so that it is written one larger."""
    op = ops.Conv(stride=(2, 2), padding=((1, 1), (1, 1)), dilation=(1, 1))

    def make(b: Any, x: str) -> str:
        kernel = b.constant("kernel", np.linspace(-1, 3, 20, dtype=np.float32).reshape(1, 1, 4, 5))
        return str(b.node("y", op, x, kernel))

    graph = quantized(image_graph(make), activations="uint8", weights="uint8")
    inputs = stored_values(graph)
    model, _ = compiled(graph, tmp_path / "model.xml")
    wanted = outside(execute(graph, inputs, stored=True)["result"]).astype(int)
    assert np.abs(run(model, inputs)[0].astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("name", ["mobile_with_float_ports", "conv_uint8", "conv_weight_only", "conv_int16"])
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    load("converters", "openvino").write(GRAPHS[name], path)
    whole = {each: each.read_bytes() for each in (path, path.with_suffix(".bin"))}
    refused = 0
    for seed in range(60):
        for each, content in whole.items():
            # The constants have no structure that a mutation could know: they are damaged as text is.
            is_damaged = each.suffix == ".xml" or seed % 2
            each.write_bytes(mutated(content, ".xml", seed) if is_damaged else content)
        try:
            load("converters", "openvino").read(path)
        except EdgeCNNError:
            refused += 1
    assert 0 < refused < 60
