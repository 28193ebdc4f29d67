"""What quantizing costs: nothing is read twice, memory does not grow with the images, time is bounded by a ratio."""

import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.contract import Contract
from edgecnn.execute import with_image_statistics
from edgecnn.graph import Array, Graph
from edgecnn.passes.deploy import deploy
from edgecnn.quantization import samples as sampling
from edgecnn.quantization.quantize import Samples, quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.quantization.repairs import CORRECTION_IMAGES
from edgecnn.quantization.samples import Remembered, Sample, image_batches

SIDE = 32


def network() -> Graph:
    b = GraphBuilder("net", initialise=he_normal(0))
    x = b.activate(b.conv(b.input("image", (1, SIDE, SIDE, 3)), "stem", 8, kernel_size=3), "stem", ops.ReLU6())
    return deploy(b.finish({"y": b.dense(b.node("mean", ops.Mean(axes=(1, 2)), x), "logits", 5)})).graph


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def batches(count: int) -> list[dict[str, Array]]:
    return [{"image": np.full((2, 3), number, np.float32)} for number in range(count)]


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(equalize=True)])
def test_every_picture_is_decoded_once(recipe: Recipe, tmp_path: Path) -> None:
    folder, seen = pictures(tmp_path / "pictures", 10), []

    def watch(sample: Sample, values: Array) -> None:
        seen.append(sample.name)

    def batches(graph: Graph) -> sampling.Batches:
        return image_batches(folder, Contract(height=SIDE, width=SIDE), port="image", watch=watch)

    assert quantize(network(), recipe, Samples(batches=batches, origin="noise")).repairs
    assert seen == [f"{number:03}.png" for number in range(10)]


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "KEPT_BYTES", 5 * 24)  # bytes of five batches
    read: list[int] = []

    class Source:
        def __iter__(self) -> Iterator[Mapping[str, Array]]:
            for number, batch in enumerate(batches(8)):
                read.append(number)
                yield batch

    remembered = Remembered(Source())
    for start in (0, 5):  # what was kept is not asked for again, but a source has to pass it
        first = [int(batch["image"][0, 0]) for batch in remembered]
        assert first == list(range(8))
        assert read[-8:] == list(range(8)), start
    assert len(remembered._kept) == 5


def test_going_through_a_part_keeps_that_part(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = Remembered(batches(4))
    for _ in range(2):
        assert [int(batch["image"][0, 0]) for batch, _ in zip(remembered, range(2), strict=False)] == [0, 1]
    assert [int(batch["image"][0, 0]) for batch in remembered] == [0, 1, 2, 3]


MEMORY = """
import sys
from tests.test_quantize_speed import peak
print(peak(int(sys.argv[1])))
"""


def peak(images: int) -> int:
    """Quantize on so many pictures of noise, and return the largest resident size of this process in kB."""
    b = GraphBuilder("net", initialise=he_normal(0))
    x = b.input("image", (1, 160, 160, 3))
    for number in range(3):
        x = b.activate(
            b.batch_norm(b.conv(x, f"conv_{number}", 32, kernel_size=3), f"norm_{number}"), f"relu_{number}", ops.ReLU()
        )
    rng = np.random.default_rng(0)
    graph = b.finish({"y": b.dense(b.node("mean", ops.Mean(axes=(1, 2)), x), "logits", 5)})
    noise = {"image": rng.standard_normal((2, 160, 160, 3), dtype=np.float32)}
    graph = deploy(with_image_statistics(graph, noise)).graph

    def batches(graph: Graph) -> Iterator[Mapping[str, Array]]:
        for _ in range(images // 4):
            yield {"image": rng.standard_normal((4, 160, 160, 3), dtype=np.float32)}

    quantize(graph, Recipe(), Samples(batches=batches, origin="noise"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images() -> None:
    pytest.importorskip("onnxruntime")

    def measured(images: int) -> int:
        run = subprocess.run([sys.executable, "-c", MEMORY, str(images)], capture_output=True, text=True, check=True)
        return int(run.stdout.split()[-1])

    # 300 more pictures of 300 kB, of which at most KEPT_BYTES and the corrections' images are held.
    few, many = measured(CORRECTION_IMAGES), measured(CORRECTION_IMAGES + 300)
    assert many - few < sampling.KEPT_BYTES // 1024 + 8_000


@pytest.mark.slow
def test_quantizing_costs_a_few_times_what_converting_costs(tmp_path: Path) -> None:
    """32 pictures, three formats, whole processes; processor time, which other programs disturb least."""
    for package in ("ai_edge_litert", "onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    folder = pictures(tmp_path / "pictures", 32)

    def seconds(*options: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "edgecnn", "convert", "mobilenet_v2", "--no-verify", "--force", *options]
        subprocess.run([*command, "-o", str(tmp_path / "out")], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    quantized = ("--recipe", "static_w8_a8", "--data", str(folder))
    converted, whole = (min(seconds(*options) for _ in range(2)) for options in ((), quantized))
    assert whole < 6 * converted, (whole, converted)
