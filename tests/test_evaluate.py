"""Evaluate: labelled images, which output a class is, shares with intervals, and paired differences."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgecnn import ops, registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cli import edgecnn, main
from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, NotThereError, UsageError
from edgecnn.evaluate import Contestant, Evaluation, confusion_matrix, evaluate
from edgecnn.extras import EXTRA_OF
from edgecnn.graph import Array, Graph
from edgecnn.interfaces import Session
from edgecnn.labelled import LabelledImages, offset_of, read_labelled, settle
from edgecnn.paired import mcnemar, wilson
from edgecnn.ports import Exterior
from edgecnn.quantization.parameters import per_tensor
from edgecnn.verify import run_batches
from tests.quantized_graphs import quantized

DATA = Path(os.environ.get("EDGECNN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
}
UNSEEN = Contract(height=8, width=8, mean=(0.0,) * 3, std=(255.0,) * 3)


def colour_network(labels: Sequence[str] = tuple(COLOURS), *, has_contract: bool = True) -> Graph:
    """Score each colour by the direction of an image's mean pixel; unknown labels are never the answer."""
    b = GraphBuilder("colours", initialise=he_normal(0))
    mean = b.node("mean", ops.Mean(axes=(1, 2), keep_dims=False), b.input("image", (1, 8, 8, 3)))
    columns = [np.array(COLOURS.get(label, (-255, -255, -255)), np.float32) for label in labels]
    kernel = np.stack([column / np.linalg.norm(column) for column in columns], axis=1)
    graph = b.finish({"scores": b.node("scores", ops.Dense(), mean, b.constant("kernel", kernel))})
    return replace(graph, contract=replace(UNSEEN, labels=tuple(labels))) if has_contract else graph


def integer_network(dtype: str) -> Graph:
    """The colour network in integers of ranges that pictures reach: 0..1 up to the scores, 0..2 there."""
    graph = quantized(colour_network(), activations=dtype, weights=dtype)
    zero = int(np.iinfo(dtype).min)
    scales = dict.fromkeys((node.outputs[0] for node in graph.nodes), 2 / 255) | {graph.nodes[0].output: 1 / 255}
    scales |= {port.tensor: 1 / 255 for port in graph.inputs}
    tensors = {n: replace(graph.tensors[n], quantization=per_tensor(s, zero, dtype)) for n, s in scales.items()}
    return replace(graph, tensors={**graph.tensors, **tensors})


def written(graph: Graph, folder: Path, name: str = "net", form: str = "onnx") -> Path:
    converter = registry.load("converters", form)
    path = folder / f"{name}{converter.suffix}"
    converter.write(graph, path)
    return path


def picture(path: Path, colour: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), COLOURS[colour]).save(path)
    return path


def colour_folder(folder: Path) -> Path:
    """Two images of each colour; one of "red" is blue."""
    for name in COLOURS:
        for index in range(2):
            picture(folder / name / f"{index}.png", "blue" if (name, index) == ("red", 1) else name)
    return folder


def swapped() -> Graph:
    """A network that takes green for blue and blue for green."""
    labels = list(COLOURS)
    labels[1], labels[2] = labels[2], labels[1]
    graph = colour_network(labels)
    return replace(graph, contract=replace(UNSEEN, labels=tuple(COLOURS)))


def evaluated(
    paths: Sequence[Path], data: Path, labels: Sequence[str] = tuple(COLOURS), *, target: str | None = None
) -> Evaluation:
    images = read_labelled(data)
    contestants = [Contestant(path=path, contract=UNSEEN) for path in paths]
    return evaluate(contestants, images, settle(images, labels), target=target)


@pytest.mark.parametrize("form", ["keras", "tflite", "onnx", "openvino"])
def test_every_format_counts_what_is_right(form: str, tmp_path: Path) -> None:
    data, first = colour_folder(tmp_path / "data"), written(colour_network(), tmp_path, "first", form)
    found = evaluated([first, written(swapped(), tmp_path, "second", form)], data)
    one, two = found.results
    assert (one.top1.count, one.top1.total, one.top5 and one.top5.count) == (13, 14, 14)
    assert (one.agreement, one.against_first) == (None, None)
    assert (two.top1.count, two.agreement and two.agreement.count) == (9, 9)
    assert two.against_first == mcnemar(4, 0)
    assert [(c.actual, c.predicted, c.count) for c in one.confusions] == [(0, 2, 1)]
    assert [(c.actual, c.predicted, c.count) for c in two.confusions] == [(1, 2, 2), (2, 1, 2), (0, 1, 1)]
    assert one.right == {0: 1, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2}
    assert one.facts.instruction_set == found.instruction_set
    matrix = confusion_matrix(found, two)
    assert matrix[0].tolist() == [0.5, 0.5, 0, 0, 0, 0, 0]
    assert matrix.sum(axis=1).tolist() == [1.0] * 7


@pytest.mark.parametrize("activations", ["int8", "uint8"])
@pytest.mark.parametrize("target", ["litert_cpu", "reference"])
def test_integer_ports_are_evaluated_like_float_ones(activations: str, target: str, tmp_path: Path) -> None:
    path = written(integer_network(activations), tmp_path, form="tflite")
    found = evaluated([path], colour_folder(tmp_path / "data"), target=target)
    assert found.results[0].top1.count == 13
    assert found.results[0].target == target


def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def counted(session: Session, inputs: Mapping[str, Array], known: Exterior) -> dict[str, Array]:
        held.append(len(inputs["image"]))
        return run_batches(session, inputs, known)

    monkeypatch.setattr("edgecnn.evaluate.CHUNK", 3)
    monkeypatch.setattr("edgecnn.evaluate.run_batches", counted)
    found = evaluated([written(colour_network(), tmp_path)], colour_folder(tmp_path / "data"))
    assert held == [3, 3, 3, 3, 2]
    assert found.results[0].top1.count == 13


def test_what_is_no_classifier_of_the_pictures_is_refused(tmp_path: Path) -> None:
    data, path = colour_folder(tmp_path / "data"), written(colour_network(), tmp_path)
    images = read_labelled(data)
    truth = settle(images, ())
    with pytest.raises(UsageError, match=r"input 'image' by its contract must have shape 3x8x8; got 9x8x3"):
        evaluate([Contestant(path=path, contract=replace(UNSEEN, height=9))], images, truth)
    with pytest.raises(
        UsageError, match=r"a classifier of one picture was wanted; it takes 1 inputs and gives features"
    ):
        evaluate([Contestant(path=path, contract=replace(UNSEEN, output="features"))], images, truth)


def labelled(*names: str) -> LabelledImages:
    files = tuple(Path(f"{index}.png") for index in range(len(names)))
    return LabelledImages(files=files, names=names, all_names=tuple(sorted(set(names))), origin="data")


def test_names_are_labels_then_numbers_then_sorted() -> None:
    by_label = settle(labelled("Great_White Shark", "tench"), ("tench, Tinca tinca", "great white shark, shark"))
    assert (by_label.classes.tolist(), by_label.rule) == ([1, 0], "by label")
    by_number = settle(labelled("002", "0"), ())
    assert (by_number.classes.tolist(), by_number.rule, by_number.label(2)) == ([2, 0], "by number", "2")
    by_order = settle(labelled("b", "a", "b"), ())
    assert (by_order.classes.tolist(), by_order.labels) == ([1, 0, 1], ("a", "b"))
    digits = settle(labelled("1", "0"), ("0", "1"))
    assert digits.rule == "by label"


def test_numbers_skip_a_background_label_and_say_so() -> None:
    truth = settle(labelled("0", "1"), ("background", "tench", "goldfish"))
    assert truth.classes.tolist() == [1, 2]
    assert "number k is label k + 1" in truth.rule


def test_a_label_that_could_be_two_classes_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        settle(labelled("crane", "hen"), ("hen", "crane", "crane"))
    assert str(caught.value) == (
        "data: classes named by label or by number were wanted; 'crane' is no label of the network (hen, crane, "
        "crane, ...), or of several classes. Give the data's own with --labels FILE."
    )


def test_the_background_is_never_guessed() -> None:
    numbers, named = settle(labelled("0", "999"), ()), settle(labelled("a", "b", "c"), ())
    assert offset_of(numbers, 1000, (), None, "net") == 0
    assert offset_of(numbers, 1001, (), 1, "net") == 1
    with pytest.raises(
        UsageError, match=r"net: numbered classes and 1001 outputs do not say which output a class is\."
    ):
        offset_of(numbers, 1001, (), None, "net")
    assert offset_of(named, 3, (), None, "net") == 0
    assert offset_of(named, 4, ("background", "a", "b", "c"), None, "net") == 1
    with pytest.raises(UsageError, match="3 classes and 4 outputs do not say"):
        offset_of(named, 4, ("x", "a", "b", "c"), None, "net")
    with_background = settle(labelled("a", "b"), ("background", "a", "b"))
    assert offset_of(with_background, 2, (), None, "net") == -1


def test_classes_that_are_no_outputs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"outputs 0\.\.9 were wanted; with a class offset of 1 they are 1\.\.10\."):
        offset_of(settle(labelled("0", "9"), ()), 10, (), 1, "net")


def test_artifacts_with_and_without_a_background_are_compared_class_by_class(tmp_path: Path) -> None:
    data = colour_folder(tmp_path / "data")
    plain = written(colour_network(), tmp_path, "plain")
    shifted = written(colour_network(("background", *COLOURS)), tmp_path, "shifted")
    found = evaluated([plain, shifted], data, ("background", *COLOURS))
    assert [result.offset for result in found.results] == [-1, 0]
    assert [result.top1.count for result in found.results] == [13, 13]
    assert found.results[1].agreement == wilson(14, 14)


def test_a_list_names_files_beside_it(tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a, b.png", "red")
    picture(tmp_path / "c.png", "blue")
    path = tmp_path / "list.csv"
    path.write_text('file,label\n"pictures/a, b.png",red\n\nc.png, blue\n', encoding="utf-8-sig")
    found = read_labelled(path)
    assert [(file.name, name) for file, name in zip(found.files, found.names, strict=True)] == [
        ("a, b.png", "red"),
        ("c.png", "blue"),
    ]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (b"a.png,red,1\n", InputFileError, "line 1: file,label was wanted; got 3 columns"),
        (b"a.png,\n", InputFileError, "line 1: file,label was wanted"),
        (b"file,label\n", InputFileError, "lines of file,label were wanted; there is none"),
        (b"\xff\xfe", InputFileError, "a CSV file in UTF-8 was wanted"),
        (b'"a.png,red', InputFileError, "a CSV file in UTF-8 was wanted"),
        (b"a.png,red\n", NotThereError, "a.png was wanted; there is none"),
    ],
)
def test_a_damaged_list_is_refused(text: bytes, error: type[Exception], said: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text)
    with pytest.raises(error, match=said):
        read_labelled(path)


def test_pictures_may_be_named_by_class(tmp_path: Path) -> None:
    for name in ("000_n01440764", "002_n01484850", "002_other"):
        picture(tmp_path / f"{name}.png", "red")
    assert read_labelled(tmp_path).names == ("000", "002", "002")


def test_one_class_alone_is_no_data(tmp_path: Path) -> None:
    picture(tmp_path / "IMG_1.png", "red")
    with pytest.raises(UsageError, match=r"images of two or more classes were wanted .* found only 'IMG'"):
        read_labelled(tmp_path)
    with pytest.raises(NotThereError, match="a folder of labelled images or a CSV file was wanted"):
        read_labelled(tmp_path / "none")


def test_a_limit_is_spread_over_all_classes() -> None:
    found = labelled(*"aabbccdd").limited(4)
    assert (found.names, found.all_names) == (tuple("abcd"), tuple("abcd"))


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial(only_first: int, only_second: int) -> None:
    trials, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(trials, k) for k in range(fewer + 1)) / 2**trials
    assert mcnemar(only_first, only_second).p_value == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(only_second, only_first).p_value == mcnemar(only_first, only_second).p_value


def test_mcnemar_of_large_sets_is_finite_and_quick() -> None:
    assert 0 < mcnemar(24_700, 25_300).p_value < 0.01
    assert mcnemar(0, 5000).p_value == 0.0  # below the smallest float


@given(st.integers(1, 2000), st.data())
def test_wilsons_interval_holds_the_share_and_stays_within_bounds(total: int, data: st.DataObject) -> None:
    share = wilson(data.draw(st.integers(0, total)), total)
    assert 0 <= share.low <= share.value <= share.high <= 1
    # The interval is where |value - p| = z sqrt(p (1 - p) / n): its ends solve that.
    for end in {share.low, share.high} - {0.0, 1.0}:
        assert abs(share.value - end) == pytest.approx(1.959964 * (end * (1 - end) / total) ** 0.5, rel=1e-5)


def called(*arguments: object) -> Result:
    return CliRunner().invoke(edgecnn, ["evaluate", *map(str, arguments)])


def test_the_command_prints_and_gives_json(tmp_path: Path) -> None:
    data = colour_folder(tmp_path / "data")
    paths = [written(colour_network(), tmp_path, "first"), written(swapped(), tmp_path, "second")]
    shown = called(*paths, "--data", data)
    assert shown.exit_code == 0, shown.output
    for text in ("92.9% [68.5, 98.7]", "64.3% [38.8, 83.7]", "0.125", "14 images of 7 classes", "Instruction set"):
        assert text in shown.stdout
    found = json.loads(called(*paths, "--data", data, "--json").stdout)
    assert (found["images"], found["classes_by"]) == (14, "by label")
    assert found["classes"][0] == {"index": 0, "label": "red", "images": 2}
    assert found["artifacts"][0]["right"] == [1, 2, 2, 2, 2, 2, 2]
    assert found["artifacts"][1]["against_first"] == {"only_first": 4, "only_second": 0, "p_value": 0.125}
    assert found["artifacts"][0]["facts"]["instruction_set"] == found["instruction_set"]


def test_labels_contracts_and_limits_are_options(tmp_path: Path) -> None:
    data, path = colour_folder(tmp_path / "data"), written(colour_network(has_contract=False), tmp_path)
    refused = called(path, "--data", data)
    assert "a contract was wanted, which says how an image becomes the input" in str(refused.exception)
    contract, labels = tmp_path / "contract.json", tmp_path / "labels.txt"
    contract.write_text(UNSEEN.to_json())
    labels.write_text("\n".join(COLOURS))
    given_all = called(path, "--data", data, "--contract", contract, "--labels", labels, "--limit", 7, "--json")
    assert given_all.exit_code == 0, given_all.output
    assert (json.loads(given_all.stdout)["images"], json.loads(given_all.stdout)["classes_by"]) == (7, "by label")
    thrice = called(path, path, "--data", data, *["--contract", contract] * 3)
    assert str(thrice.exception) == "--contract: once, or once for each of 2 artifacts was wanted; got it 3 times"


def test_a_contract_of_other_pixels_than_integers_hold_is_refused(tmp_path: Path) -> None:
    data, contract = colour_folder(tmp_path / "data"), tmp_path / "contract.json"
    guess = replace(UNSEEN, std=(1.0,) * 3, recipe="static_w8_a8", is_assumed=True)
    path = written(replace(integer_network("uint8"), contract=guess), tmp_path, form="tflite")
    options = ["--labels", tmp_path / "labels.txt", "--contract", contract]
    (tmp_path / "labels.txt").write_text("\n".join(COLOURS))
    contract.write_text(UNSEEN.to_json())
    assert str(called(path, "--data", data, *options).exception) == (
        f"{path}: pixels of std (1.0, 1.0, 1.0) were wanted, for which its integers were calibrated; {contract} says "
        "(255.0, 255.0, 255.0). Quantize the float network again with that --contract, or leave it out."
    )
    contract.write_text(replace(guess, resize="stretch", is_assumed=False).to_json())
    assert called(path, "--data", data, *options).exit_code == 0, "what its integers do not depend on is the user's"
    kept = replace(guess, recipe="float32")
    path = written(replace(integer_network("uint8"), contract=kept), tmp_path, "kept", form="tflite")
    contract.write_text(UNSEEN.to_json())
    assert called(path, "--data", data, *options).exit_code == 0, "nobody calibrated on a guess for a file of others"


def test_one_picture_is_classified_by_integers_with_a_given_contract(tmp_path: Path) -> None:
    path = written(replace(integer_network("uint8"), contract=None), tmp_path, form="tflite")
    image, contract = picture(tmp_path / "a.png", "cyan"), tmp_path / "contract.json"
    contract.write_text(replace(UNSEEN, labels=tuple(COLOURS)).to_json())
    found = CliRunner().invoke(edgecnn, ["run", str(path), str(image), "--contract", str(contract), "--json"])
    assert found.exit_code == 0, found.output
    best, second = json.loads(found.stdout)["classes"][:2]
    assert best["label"] == "cyan"
    wanted = np.exp(
        np.array([1.0, 0.816]) * 255 * 2**0.5 / 255
    )  # logits: the length of cyan, and what white sees of it
    assert second["label"] == "white"
    assert second["probability"] / best["probability"] == pytest.approx(wanted[1] / wanted[0], rel=0.02)


def test_a_picture_is_drawn_whole_or_not_at_all(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data, path, drawn = (
        colour_folder(tmp_path / "data"),
        written(colour_network(), tmp_path),
        tmp_path / "confusion.png",
    )
    assert called(path, path, "--data", data, "--picture", drawn).exit_code == 0
    with Image.open(drawn) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 400
    again = called(path, "--data", data, "--picture", drawn)
    assert "exists already. Use --force" in str(again.exception)
    assert called(path, "--data", data, "--picture", drawn, "--force").exit_code == 0


def test_a_picture_must_be_a_png(tmp_path: Path) -> None:
    path = written(colour_network(), tmp_path)
    refused = called(path, "--data", tmp_path, "--picture", tmp_path / "a.jpg")
    assert "--picture: a file that ends in .png was wanted" in str(refused.exception)


@pytest.mark.skipif("matplotlib" not in EXTRA_OF, reason="extras.py has no row for matplotlib yet")
def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(colour_network(), tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(path), "--data", str(tmp_path), "--picture", str(tmp_path / "a.png")])
    assert ended.value.code == 4
    assert "edgecnn evaluate --picture needs the package matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of real weights and images (EDGECNN_TEST_DATA)")
def test_published_integers_are_as_good_as_their_readme_says(tmp_path: Path) -> None:
    folder = DATA / "weights" / "imagenet_tflite"
    contracts = [tmp_path / "float.json", tmp_path / "raw.json"]
    picture_contract = Contract(height=224, width=224)
    contracts[0].write_text(picture_contract.to_json())
    contracts[1].write_text(replace(picture_contract, mean=(0.0,) * 3, std=(1.0,) * 3).to_json())
    names = ("mobilenet_v1_0.25_224_float.tflite", "mobilenet_v1_0.25_224_quant.tflite")
    options = ["--labels", folder / "imagenet_labels.txt", "--contract", contracts[0], "--contract", contracts[1]]
    shown = called(*(folder / name for name in names), "--data", DATA / "imagenet_sample_500", "--json", *options)
    assert shown.exit_code == 0, shown.output
    first, second = json.loads(shown.stdout)["artifacts"]
    assert (first["top1"]["value"], first["top5"]["value"]) == (0.542, 0.78)
    assert (second["top1"]["value"], second["top5"]["value"]) == pytest.approx((0.546, 0.788), abs=0.005)
    assert second["agreement"]["value"] == pytest.approx(0.79, abs=0.01)
    assert second["against_first"]["p_value"] > 0.5
