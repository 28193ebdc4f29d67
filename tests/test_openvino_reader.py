"""Reading OpenVINO IR: what our writer and OpenVINO itself save comes back and computes the same."""

import random
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgecnn.converters.openvino_ir import OPENVINO

from edgecnn.errors import EdgeCNNError, InputFileError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import Graph, external_shape, from_layout, to_layout, with_batch
from edgecnn.models.build import ZooOptions, build
from edgecnn.passes.deploy import deploy
from edgecnn.passes.store_float16 import store_float16
from tests.graphs import GRAPHS


def outside(graph: Graph, feeds: dict[str, Any]) -> list[np.ndarray]:
    """Run a Graph as callers of its file see it: NCHW pictures unless a port says otherwise."""
    inner = {}
    for port in graph.inputs:
        rank = len(graph.tensors[port.tensor].shape)
        inner[port.name] = from_layout(feeds[port.name], port.layout or ("NCHW" if rank >= 4 else None))
    found = execute(graph, inner)
    return [
        to_layout(found[port.name], port.layout or ("NCHW" if found[port.name].ndim >= 4 else None))
        for port in graph.outputs
    ]


def feeds_of(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    feeds: dict[str, np.ndarray] = {}
    for port in graph.inputs:
        tensor = graph.tensors[port.tensor]
        shape = external_shape(tensor.shape, port.layout or ("NCHW" if len(tensor.shape) >= 4 else None))
        values = rng.standard_normal([size or 2 for size in shape])
        feeds[port.name] = (
            values.astype(tensor.dtype) if tensor.dtype.startswith("float") else (values > 0).astype(tensor.dtype)
        )
    return feeds


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_written_is_read_back_and_computes_the_same(name: str, tmp_path: Path) -> None:
    graph = deploy(GRAPHS[name]).graph
    path = tmp_path / "m.xml"
    try:
        OPENVINO.write(graph, path)
    except UnsupportedError as error:
        pytest.skip(str(error))
    read = OPENVINO.read(path)
    assert "Opaque" not in read.kinds()
    assert [port.name for port in read.inputs] == [port.name for port in graph.inputs]
    assert [port.name for port in read.outputs] == [port.name for port in graph.outputs]
    feeds = feeds_of(graph)
    for wanted, found in zip(outside(graph, feeds), outside(read, feeds), strict=True):
        assert wanted.dtype == found.dtype
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def written(folder: Path, graph: Graph) -> Path:
    OPENVINO.write(deploy(graph).graph, folder / "m.xml")
    return folder / "m.xml"


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("model", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"])
def test_zoo_networks_come_back_as_they_were(model: str, batch: int | None, half: bool, tmp_path: Path) -> None:
    graph = deploy(with_batch(build(model, ZooOptions(resolution=64)), batch)).graph
    graph = store_float16(graph) if half else graph
    OPENVINO.write(graph, tmp_path / "m.xml")
    read = OPENVINO.read(tmp_path / "m.xml")
    assert "Transpose" not in read.kinds()
    assert read.contract == replace(graph.contract, layout="NCHW") if graph.contract else read.contract is None
    again = deploy(read).graph
    assert again.kinds() == graph.kinds()
    stored = [sorted(str(t.data.dtype) for t in g.tensors.values() if t.data is not None) for g in (graph, again)]
    assert stored[0] == stored[1]
    feeds = feeds_of(graph)
    for wanted, found in zip(outside(graph, feeds), outside(again, feeds), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.ptp(wanted))


def test_written_read_and_written_again_is_as_large(tmp_path: Path) -> None:
    first = written(tmp_path, with_batch(build("mobilenet_v1", ZooOptions(resolution=64)), 1))
    (tmp_path / "again").mkdir()
    again = written(tmp_path / "again", OPENVINO.read(first))
    sizes = [path.with_suffix(".bin").stat().st_size for path in (first, again)]
    assert sizes[1] <= sizes[0] * 1.02
    assert again.stat().st_size <= first.stat().st_size * 1.02


def test_constants_are_views_of_the_file(tmp_path: Path) -> None:
    read = OPENVINO.read(written(tmp_path, build("lenet5")))
    kernel = read.tensors["f6/kernel"].data
    assert kernel is not None
    assert not kernel.flags.owndata
    assert not kernel.flags.writeable


def test_what_openvino_saves_of_any_layer_type_agrees_with_openvino(tmp_path: Path) -> None:
    """Forms of layers that our writer never spells."""
    ov = pytest.importorskip("openvino")
    f = pytest.importorskip("openvino.opset13")
    rng = np.random.default_rng(3)
    image = f.parameter([1, 4, 6, 6], np.float32, name="image")
    kernels = rng.standard_normal((2, 3, 2, 3, 3)).astype(np.float32)
    grouped = f.group_convolution(image, kernels, [2, 2], [0, 0], [0, 0], [1, 1], "same_lower")
    back = rng.standard_normal((2, 3, 1, 2, 2)).astype(np.float32)
    up = f.group_convolution_backprop_data(grouped, back, [2, 2], dilations=[1, 1], pads_begin=[0, 0], pads_end=[0, 0])
    shuffled = f.depth_to_space(image, "depth_first", 2)
    gathered = f.gather(image, np.array([-1, 0]), np.array(1))
    pieces = f.variadic_split(image, np.array(1), np.array([1, -1]))
    ceiled = f.max_pool(image, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3], "ceil")
    normal = f.mvn(image, np.array([2, 3]), True, 1e-4, "inside_sqrt")
    resized = f.interpolate(image, np.array([3, 12]), "nearest", "sizes", axes=np.array([2, 3]))
    vector = rng.standard_normal(4).astype(np.float32)
    cut = np.array([0, -1, 1, 0]), np.array([1, 4, -1, 0]), np.array([1, 1, 2, 1])
    outputs = [
        *(grouped, up, shuffled, gathered, pieces.output(1), ceiled.output(0), normal, resized),
        f.squared_difference(image, np.float32(0.5)),
        f.space_to_depth(image, "depth_first", 2),
        f.avg_pool(image, [2, 2], [1, 0], [0, 0], [3, 3], exclude_pad=False),
        f.batch_norm_inference(image, vector, vector, vector, np.abs(vector), 1e-3),
        f.group_normalization(image, vector, vector, 2, 1e-3),
        f.normalize_l2(image, np.array([1]), 1e-3, "max"),
        f.prelu(image, vector),
        f.softmax(image, 1),
        f.swish(image, np.float32(1.5)),
        f.matmul(image, rng.standard_normal((1, 4, 6, 5)).astype(np.float32), True, False),
        f.strided_slice(image, cut[0], cut[1], cut[2], [0, 0, 0, 1], [0, 0, 0, 1], [0] * 4, [0, 1, 0, 0], [0] * 4),
        f.slice(image, np.array([-2]), np.array([2**40]), np.array([1]), np.array([3])),
        f.slice(image, np.array([-1, 4]), np.array([-(2**40), 0]), np.array([-1, -2]), np.array([2, 3])),
        f.strided_slice(image, [0, 3], [4, 0], [1, -1], [0, 0], [0, 1], [0] * 2, [0] * 2, [0] * 2),
        f.tile(image, np.array([2, 1])),
        f.pad(image, np.array([0, 0, 1, 2]), np.array([0, 0, 2, 1]), "reflect"),
        f.reduce_l2(image, np.array([-1]), True),
        f.topk(image, np.array(1), 1, "max", "none").output(0),
        f.lrn(image, np.array([1]), 0.5, 0.75, 2.0, 3),
        f.hard_sigmoid(image, np.float32(0.3), np.float32(0.4)),
        f.select(f.greater(image, np.float32(0)), image, np.float32(2)),
    ]
    results = [each if hasattr(each, "get_any_name") else each.output(0) for each in outputs]
    model = ov.Model(results, [image], "tried")
    for number, output in enumerate(model.outputs):
        output.get_tensor().set_names({f"y{number}"})
    image.output(0).get_tensor().set_names({"image"})
    ov.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    read = OPENVINO.read(tmp_path / "m.xml")
    assert "Opaque" not in read.kinds()
    x = rng.standard_normal((1, 4, 6, 6)).astype(np.float32)
    compiled = ov.compile_model(tmp_path / "m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = compiled([x])
    for number, found in enumerate(outside(read, {"image": x})):
        np.testing.assert_allclose(found, wanted[f"y{number}"], atol=1e-5, rtol=1e-5)


def test_constants_that_are_widened_again_and_again_are_refused(tmp_path: Path) -> None:
    """A thousand layers, each of which makes 4 MB of the same 1 MB."""
    size = 1 << 20
    port = f'<port id="{{}}" precision="{{}}"><dim>{size}</dim></port>'
    layers = [
        f'<layer id="0" name="c" type="Const"><data element_type="u8" shape="{size}" offset="0" size="{size}"/>'
        f"<output>{port.format(0, 'U8')}</output></layer>",
        f'<layer id="1" name="x" type="Parameter"><output>{port.format(0, "FP32")}</output></layer>',
        f'<layer id="2" name="y" type="Result"><input>{port.format(0, "FP32")}</input></layer>',
    ]
    edges = ['<edge from-layer="1" from-port="0" to-layer="2" to-port="0"/>']
    for number in range(3, 1003):
        edges.append(f'<edge from-layer="0" from-port="0" to-layer="{number}" to-port="0"/>')
        layers.append(
            f'<layer id="{number}" name="f" type="Convert"><data destination_type="f32"/>'
            f"<input>{port.format(0, 'U8')}</input><output>{port.format(1, 'FP32')}</output></layer>"
        )
    text = f"<layers>{''.join(layers)}</layers><edges>{''.join(edges)}</edges>"
    (tmp_path / "m.xml").write_text(f'<net name="m" version="11">{text}</net>')
    (tmp_path / "m.bin").write_bytes(bytes(size))
    with pytest.raises(InputFileError, match="share few bytes"):
        OPENVINO.read(tmp_path / "m.xml")


def test_a_kernel_that_two_layers_share_is_stored_once(tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    f = pytest.importorskip("openvino.opset13")
    image = f.parameter([1, 3, 6, 6], np.float32, name="image")
    kernel = f.constant(np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32))
    once = f.convolution(image, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    twice = f.convolution(once, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    ov.save_model(ov.Model([twice], [image], "shared"), tmp_path / "m.xml", compress_to_fp16=False)
    read = OPENVINO.read(tmp_path / "m.xml")
    assert len({node.inputs[1] for node in read.nodes if node.kind == "Conv"}) == 1


def test_a_layer_that_is_not_known_is_listed(tmp_path: Path) -> None:
    path = written(tmp_path, GRAPHS["relu"])
    path.write_text(path.read_text().replace('type="ReLU"', 'type="Selu"'))
    read = OPENVINO.read(path)
    assert [node.op.attributes()["kind"] for node in read.nodes if node.kind == "Opaque"] == ["Selu"]


@pytest.mark.parametrize(
    ("pattern", "to", "text"),
    [
        ('version="11"', 'version="7"', "an IR of version 10 or 11 was wanted; got 7"),
        ('<edge from-layer="0" from-port="0"', '<edge from-layer="99" from-port="0"', "an edge between ports that are"),
        ('offset="\\d+"', 'offset="999999"', "were wanted; the .bin has"),
        ('offset="\\d+"', 'offset="-4"', "bytes -4 to"),
        ('shape="5,4,3,3"', 'shape="5,4,3,x"', "whole numbers were wanted; got '5,4,3,x'"),
        ('shape="5,4,3,3"', 'shape="900000000,900000000"', "do not hold"),
        ('strides="2,2"', 'strides="0,2"', "2 numbers of at least 1 were wanted"),
        ('<layer id="1"', '<layer id="0"', "layers of different ids were wanted"),
        ("<dim>5</dim>", "<dim>6</dim>", "the file states"),
        ("<\\?xml", "<!DOCTYPE a><?xml", "malformed|DOCTYPE"),
        ("</net>", "", "malformed"),
        ('precision="FP32"', 'precision="U4"', "one of float32, .* was wanted; got 'U4'"),
    ],
)
def test_what_is_wrong_is_named(pattern: str, to: str, text: str, tmp_path: Path) -> None:
    path = written(tmp_path, GRAPHS["conv"])
    whole = path.read_text()
    changed = re.sub(pattern, to, whole, count=0 if "dim" in pattern else 1)
    assert changed != whole
    path.write_text(changed)
    with pytest.raises(InputFileError, match=text):
        OPENVINO.read(path)


def test_a_cycle_and_a_missing_file_of_constants_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, GRAPHS["minimum_of_two"])
    text = path.read_text()
    layers = {name: number for number, name in re.findall(r'<layer id="(\d+)" name="([^"]*)"', text)}
    to_tanh = re.search(rf'<edge from-layer="\d+" from-port="\d+" to-layer="{layers["t"]}" to-port="0" />', text)
    assert to_tanh is not None
    output = re.search(rf'<layer id="{layers["y"]}".*?<output><port id="(\d+)"', text, re.DOTALL)
    assert output is not None
    edge = f'<edge from-layer="{layers["y"]}" from-port="{output[1]}" to-layer="{layers["t"]}" to-port="0" />'
    path.write_text(text.replace(to_tanh[0], edge))
    with pytest.raises(InputFileError, match="depends on itself"):
        OPENVINO.read(path)
    path = written(tmp_path, GRAPHS["conv"])
    path.with_suffix(".bin").unlink()
    with pytest.raises(InputFileError, match="the constants of the model were wanted beside it"):
        OPENVINO.read(path)


MUTATIONS = (
    "0",
    "-1",
    "1",
    "3",
    "7",
    "999999999",
    "-999999999",
    "1,1",
    "",
    "nan",
    "1e400",
    "x",
    "2147483647",
    "2" * 19,
)


def test_mutated_files_end_in_an_error_of_ours_or_a_graph(tmp_path: Path) -> None:
    rng = random.Random(4)
    names = ["conv", "conv_transpose_cut", "max_pool_same", "slice_strided", "resize_bilinear", "mean", "layer_norm"]
    texts = []
    for name in names:
        path = written(tmp_path, GRAPHS[name])
        texts.append((path.read_text(), path.with_suffix(".bin").read_bytes()))
    kinds = sorted({kind for text, _ in texts for kind in re.findall(r'type="(\w+)"', text)})
    for _ in range(300):
        text, constants = rng.choice(texts)
        for _ in range(rng.randint(1, 3)):
            spot = rng.choice(list(re.finditer(r'(?<=")[^"<>]*(?=")|(?<=<dim>)[^<]*', text)))
            new = rng.choice(kinds) if spot[0] in kinds else rng.choice(MUTATIONS)
            text = text[: spot.start()] + new + text[spot.end() :]
        path.write_text(text)
        path.with_suffix(".bin").write_bytes(
            constants[: rng.choice((len(constants), rng.randrange(len(constants) + 1)))]
        )
        with suppress(EdgeCNNError):
            assert OPENVINO.read(path).outputs
