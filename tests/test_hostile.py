"""Files made by hand to hurt a reader: cycles, sizes that no memory holds, references to what is not there or ours."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgecnn import registry
from edgecnn.builder import GraphBuilder, no_values
from edgecnn.errors import EdgeCNNError, GraphError, InputFileError, UnsupportedError
from edgecnn.graph import Graph
from edgecnn.interfaces import Reader
from edgecnn.isolated import ChildError, Limits, Worker
from edgecnn.ops import Add, ReLU

LIMITS = Limits(seconds=5, memory_bytes=1 << 29)
REFUSALS = (InputFileError, GraphError, UnsupportedError)
HUGE = 2**31 - 1


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as child:
        yield child


def assert_refused(worker: Worker, path: Path, *, may_be_read: bool = False) -> None:
    """Reading ends in a refusal that names the file, in bounded time and memory."""
    try:
        worker.call("tests.mutations:read_file", str(path), wanted=f"{path}: a finding", limits=LIMITS)
    except EdgeCNNError as error:
        found: EdgeCNNError | None = error
    else:
        found = None
    assert not isinstance(found, ChildError), str(found)
    assert (found is None and may_be_read) or (type(found) in REFUSALS and path.name in str(found)), repr(found)


def refuse_to_run_unread(name: str) -> None:
    if not isinstance(registry.load("converters", name), Reader):
        pytest.skip(f"{name} is not read")


def small_graph() -> Graph:
    b = GraphBuilder("small", initialise=no_values)
    x = b.input("x", (1, 4, 4, 2))
    y = b.node("relu", ReLU(), x)
    z = b.node("add", Add(), y, b.constant("c", np.ones((1, 4, 4, 2), np.float32)))
    return b.finish({"z": b.node("last", ReLU(), z)})


# --- ONNX ------------------------------------------------------------------------------------------------------------

Nodes = list[tuple[str, str, str, dict[str, Any]]]
"""(operator, inputs, outputs, attributes), names separated by spaces."""

CONSTANT, NEGATED = ("ConstantOfShape", "s", "c"), ("Neg", "c", "d")
ONNX_GRAPHS: dict[str, Any] = {
    "cycle": ([("Relu", "b", "a", {}), ("Relu", "a", "b", {}), ("Add", "x b", "y", {})], {}),
    "itself": ([("Add", "x y", "y", {})], {}),
    "twice": ([("Relu", "x", "y", {}), ("Sigmoid", "x", "y", {})], {}),
    "dangling": ([("Add", "x ghost", "y", {})], {}),
    "no_inputs": ([("Add", "", "y", {})], {}),
    "reshape_huge": ([("Reshape", "x s", "y", {})], {"s": [HUGE, HUGE, HUGE]}),
    "expand_huge": ([("Expand", "x s", "y", {})], {"s": [1 << 20, 1 << 20, 4, 4]}),
    "constant_huge": ([("ConstantOfShape", "s", "c", {}), ("Add", "x c", "y", {})], {"s": [1 << 31, 1 << 31, 1, 4]}),
    "range_huge": (
        [("Range", "a b c", "r", {}), ("Cast", "r", "f", {"to": 1}), ("Add", "x f", "y", {})],
        {"a": [0], "b": [1 << 60], "c": [1]},
    ),
    "tile_constant": (
        [("Tile", "s s", "t", {}), ("Tile", "t s", "u", {}), ("Tile", "u s", "w", {}), ("Add", "x w", "y", {})],
        {"s": [1 << 30]},
    ),
    "pad_huge": ([("Pad", "x s", "y", {})], {"s": [0, 0, 1 << 40, 0, 0, 0, 1 << 40, 0]}),
    "pad_below": ([("Pad", "x s", "y", {})], {"s": [0, 0, -99, 0, 0, 0, -99, 0]}),
    "transpose": ([("Transpose", "x", "y", {"perm": [0, 0, 9, -1]})], {}),
    "concat_axis": ([("Concat", "x x", "y", {"axis": 1 << 40})], {}),
    "zero_stride": ([("MaxPool", "x", "y", {"kernel_shape": [2, 2], "strides": [0, 0]})], {}),
    "long_kernel": ([("AveragePool", "x", "y", {"kernel_shape": [HUGE, HUGE]})], {}),
    "slice_step": ([("Slice", "x a b c d", "y", {})], {"a": [0], "b": [4], "c": [2], "d": [0]}),
    "split_huge": ([("Split", "x s", "y z", {"axis": 1})], {"s": [1 << 62, 2 - (1 << 62)]}),
    "gather": ([("Gather", "x s", "y", {"axis": 3})], {"s": [1 << 40, -(1 << 40)]}),
    "many_operands": ([("Sum", "x " * 10_000, "y", {})], {}),
    "constant_text": ([("ConstantOfShape", "s", "c", {"value": "1"}), ("Reshape", "x c", "y", {})], {"s": [2]}),
    "constants_many": (
        [(kind, f"{i}{n}", f"{o}{n}", {}) for n in range(999) for kind, i, o in (CONSTANT, NEGATED)]
        + [("Relu", "x", "y", {})],
        {f"s{n}": [1 << 24] for n in range(999)},
    ),
    "where_huge": (
        [("ConstantOfShape", f"s{n}", f"c{n}", {}) for n in range(3)]
        + [("Where", "c0 c1 c2", "w", {}), ("ReduceMax", "w", "m", {}), ("Add", "x m", "y", {})],
        {"s0": [1 << 13, 1, 1], "s1": [1 << 13, 1], "s2": [1 << 13]},
    ),
    "resize_far": (
        [("Resize", "x   s", "y", {"mode": "linear", "antialias": 1})],
        {"s": [1, 1, 1, 1]},
        [1, 1, 1 << 23, 1],
    ),
    "wrong_kind": ([("Relu", "x", "y", {"alpha": "text"}), ("Softmax", "y", "z", {"axis": "1"})], {}),
}
MAY_BE_READ = {
    *("wrong_kind", "reshape_huge", "constant_huge", "range_huge", "tile_constant", "pad_huge", "many_operands"),
    *("constant_text", "where_huge", "resize_far"),
}
"""As a Graph of which nothing is computed, or with an Opaque node."""


def onnx_file(path: Path, nodes: Nodes, numbers: dict[str, list[int]], shape: list[Any] | None = None) -> Any:
    onnx: Any = pytest.importorskip("onnx")
    help_: ModuleType = onnx.helper
    port = help_.make_tensor_value_info
    scalars = {"a", "b", "c"} if any(kind == "Range" for kind, *_ in nodes) else set()
    model = help_.make_model(
        help_.make_graph(
            [
                help_.make_node(kind, i.strip().split(" ") if i else [], o.split(), **attributes)
                for kind, i, o, attributes in nodes
            ],
            "hostile",
            [port("x", 1, shape or [1, 2, 4, 4])],
            [port(nodes[-1][2].split()[0], 1, None)],
            [
                help_.make_tensor(name, 7, [] if name in scalars else [len(values)], values)
                for name, values in numbers.items()
            ],
        ),
        opset_imports=[help_.make_opsetid("", 18)],
        ir_version=8,
    )
    path.write_bytes(model.SerializeToString())
    return model


@pytest.mark.parametrize("case", ONNX_GRAPHS)
def test_onnx_graphs(case: str, worker: Worker, tmp_path: Path) -> None:
    refuse_to_run_unread("onnx")
    onnx_file(tmp_path / "a.onnx", *ONNX_GRAPHS[case])
    assert_refused(worker, tmp_path / "a.onnx", may_be_read=case in MAY_BE_READ)


def _external(location: str, **more: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("int64_data")
        tensor.data_location = 1
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=value)

    return change


def _dims(*sizes: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.graph.initializer[0].dims[:] = sizes

    return change


def _raw(size: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("int64_data")
        tensor.raw_data = bytes(size)

    return change


def _deep_subgraphs(model: Any) -> None:
    node = model.graph.node[0]
    for _ in range(90):
        attribute = node.attribute.add(name="body", type=5)
        node = attribute.g.node.add(op_type="If")


def _without_condition(model: Any) -> None:
    node = model.graph.node[0]
    node.op_type, node.input[:] = "If", [""]


def _many_branches(model: Any) -> None:
    """Each an If of its own, over as many values."""
    for number in range(10_000):
        node = model.graph.node.add(op_type="If", input=["s"], output=[f"v{number}"])
        for name in ("then_branch", "else_branch"):
            branch = node.attribute.add(name=name, type=5).g
            branch.node.add(op_type="Relu", input=["x"], output=[f"{name}{number}"])
            branch.output.add(name=f"{name}{number}")


ONNX_MODELS: dict[str, Callable[[Any], None]] = {
    "no_condition": _without_condition,
    "many_branches": _many_branches,
    "dims_huge": _dims(HUGE, HUGE, HUGE, HUGE),
    "dims_negative": _dims(-4),
    "dims_many": _dims(*[1] * 5000),
    "dims_wrap": _dims(1 << 32, 1 << 32, 4),
    "raw_short": _raw(3),
    "raw_long": _raw(4096),
    "external_absolute": _external("/etc/passwd", offset="0", length="32"),
    "external_climbing": _external("../../../../../../etc/passwd"),
    "external_folder": _external("."),
    "external_missing": _external("ghost.bin"),
    "external_beyond": _external("a.onnx", offset=str(1 << 60), length="32"),
    "external_no_number": _external("a.onnx", offset="-1", length="x" * 100),
    "external_huge": _external("a.onnx", offset="0", length=str(1 << 62)),
    "no_opset": lambda model: model.ClearField("opset_import"),
    "opset_huge": lambda model: setattr(model.opset_import[0], "version", (1 << 63) - 1),
    "input_type": lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 99),
    "tensor_type": lambda model: setattr(model.graph.initializer[0], "data_type", 99),
    "no_outputs": lambda model: model.graph.ClearField("output"),
    "deep_subgraphs": _deep_subgraphs,
    "no_graph": lambda model: model.ClearField("graph"),
}


@pytest.mark.parametrize("case", ONNX_MODELS)
def test_onnx_models(case: str, worker: Worker, tmp_path: Path) -> None:
    refuse_to_run_unread("onnx")
    path = tmp_path / "a.onnx"
    model = onnx_file(path, [("Reshape", "x s", "y", {})], {"s": [1, 2, 16, 1]})
    ONNX_MODELS[case](model)
    path.write_bytes(model.SerializeToString())
    assert_refused(worker, path, may_be_read=case in {"deep_subgraphs", "opset_huge", "many_branches"})


def test_onnx_external_data_behind_a_link_out_of_the_folder(worker: Worker, tmp_path: Path) -> None:
    refuse_to_run_unread("onnx")
    (tmp_path / "outside").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "data.bin").symlink_to(tmp_path / "outside")
    model = onnx_file(folder / "a.onnx", [("Reshape", "x s", "y", {})], {"s": [1, 2, 16, 1]})
    _external("data.bin", offset="0", length="32")(model)
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    assert_refused(worker, folder / "a.onnx")


@pytest.mark.parametrize("shape", [[HUGE] * 4, [0, 2, 4, 4], [-5, 2, 4, 4], [1] * 3000, ["n", "c", "h", "w"]])
def test_onnx_inputs(shape: list[Any], worker: Worker, tmp_path: Path) -> None:
    refuse_to_run_unread("onnx")
    onnx_file(tmp_path / "a.onnx", [("Relu", "x", "y", {})], {}, shape)
    assert_refused(worker, tmp_path / "a.onnx", may_be_read=True)


# --- TFLite ----------------------------------------------------------------------------------------------------------


def _set(path: str, value: Any) -> Callable[[Any], None]:
    """Return a change of one field: "subgraphs.0.operators.1.inputs"."""

    def change(model: Any) -> None:
        *steps, last = path.split(".")
        for step in steps:
            model = model[int(step)] if step.isdecimal() else getattr(model, step)
        setattr(model, last, value)

    return change


def _each(items: Callable[[Any], list[Any]], **fields: Any) -> Callable[[Any], None]:
    """Return a change of the same fields of many tables."""

    def change(model: Any) -> None:
        for item in items(model):
            for name, value in fields.items():
                setattr(item, name, value)

    return change


def _cycle(model: Any) -> None:
    first, *_, last = model.subgraphs[0].operators
    first.inputs = last.outputs


def _many_operators(model: Any) -> None:
    model.subgraphs[0].operators *= 10_000


TFLITE: dict[str, Callable[[Any], None]] = {
    "cycle": _cycle,
    "itself": lambda model: setattr(model.subgraphs[0].operators[0], "outputs", model.subgraphs[0].operators[0].inputs),
    "repeated": _many_operators,
    "shape_huge": _set("subgraphs.0.tensors.0.shape", [HUGE] * 4),
    "shape_negative": _set("subgraphs.0.tensors.0.shape", [1, -7, 4, 2]),
    "shape_zero": _set("subgraphs.0.tensors.0.shape", [1, 0, 4, 2]),
    "shape_long": _set("subgraphs.0.tensors.0.shape", [1] * 3000),
    "tensor_type": _set("subgraphs.0.tensors.0.type", 77),
    "buffer_index": _each(lambda m: m.subgraphs[0].tensors, buffer=9999),
    "no_buffers": _set("buffers", []),
    "outside": _each(lambda m: m.buffers, offset=1 << 60, size=1 << 60),
    "opcode_index": _set("subgraphs.0.operators.0.opcodeIndex", 999),
    "opcode": _each(lambda m: m.operatorCodes, builtinCode=9999, deprecatedBuiltinCode=127),
    "no_options": _each(lambda m: m.subgraphs[0].operators, builtinOptions=None),
    "no_operator_inputs": _set("subgraphs.0.operators.1.inputs", []),
    "missing_operand": _set("subgraphs.0.operators.1.inputs", [-1, -1]),
    "operand_index": _set("subgraphs.0.operators.1.inputs", [HUGE, -HUGE]),
    "output_index": _set("subgraphs.0.outputs", [12345]),
    "no_outputs": _set("subgraphs.0.outputs", []),
    "no_subgraphs": _set("subgraphs", []),
    "no_tensors": _set("subgraphs.0.tensors", []),
    "version": _set("version", 99),
    "signature": _set("signatureDefs.0.subgraphIndex", 77),
}
TFLITE_MAY_BE_READ = {"no_options", "no_outputs", "opcode", "shape_huge", "signature", "version"}


@pytest.mark.parametrize("case", TFLITE)
def test_tflite_models(case: str, worker: Worker, tmp_path: Path) -> None:
    refuse_to_run_unread("tflite")
    schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers: Any = pytest.importorskip("flatbuffers")
    path = tmp_path / "a.tflite"
    registry.load("converters", "tflite").write(small_graph(), path)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    TFLITE[case](model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    assert_refused(worker, path, may_be_read=case in TFLITE_MAY_BE_READ)


# --- Keras -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_keras_members_packed_by_other_methods(method: int, worker: Worker, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w", method) as archive:
        archive.writestr("config.json", "{}")
    assert_refused(worker, tmp_path / "a.keras")


def test_keras_members_that_overlap(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(100))
        archive.filelist[1].header_offset = 0
    assert_refused(worker, path)


def test_an_hdf5_text_without_end(worker: Worker, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["model_config"] = "{" * (17 << 20)
        file.create_group("model_weights")
    assert_refused(worker, tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["soft", "external", "hard"])
def test_hdf5_links_that_go_round(kind: str, worker: Worker, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        group = file.create_group("layers/dense")
        target = {"soft": h5py.SoftLink("/layers"), "external": h5py.ExternalLink("a.weights.h5", "/layers")}
        group["vars"] = target.get(kind, file["layers"])
    with pytest.raises(REFUSALS, match=r"a\.weights\.h5"):
        registry.load("converters", "keras").read_weights(tmp_path / "a.weights.h5")


# --- OpenVINO IR -----------------------------------------------------------------------------------------------------

IR: dict[str, tuple[str, str]] = {
    "cycle": ('from-layer="0"', 'from-layer="3"'),
    "ghost_layer": ('from-layer="0"', 'from-layer="99"'),
    "ghost_port": ('from-port="0"', 'from-port="99"'),
    "huge_size": ("<dim>4</dim>", f"<dim>{1 << 62}</dim>"),
    "constant_size": ('size="128"', f'size="{1 << 62}"'),
    "constant_offset": ('offset="0"', f'offset="{1 << 62}"'),
    "negative_offset": ('offset="0"', 'offset="-64"'),
    "constant_shape": ('2,4,4" offset', f'{HUGE},{HUGE},{HUGE}" offset'),
    "number": ('id="1"', f'id="{"9" * 6000}"'),
    "same_id": ('layer id="1"', 'layer id="0"'),
    "type": ('type="ReLU"', 'type="Loop"'),
    "element": ('element_type="f32"', 'element_type="string"'),
    "entity": ("<net ", '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]><net '),
    "deep": ("<layers>", "<layers>" + "<a>" * 100_000),
    "no_layers": ("<layers>", "<strata>"),
}
IR_MAY_BE_READ = {"huge_size", "type"}


@pytest.mark.parametrize("case", IR)
def test_ir_models(case: str, worker: Worker, tmp_path: Path) -> None:
    refuse_to_run_unread("openvino")
    path = tmp_path / "a.xml"
    registry.load("converters", "openvino").write(small_graph(), path)
    text = path.read_text()
    old, new = IR[case]
    assert old in text
    path.write_text(text.replace(old, new))
    assert_refused(worker, path, may_be_read=case in IR_MAY_BE_READ)
