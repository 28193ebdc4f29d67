"""Golden counts of every network, and independent formulas. Source: shared/REFERENCE.md 1.0, derived to the digit."""

from math import ceil
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from edgecnn import registry
from edgecnn.count import Cost, count
from edgecnn.errors import UsageError
from edgecnn.execute import execute
from edgecnn.graph import Graph, validate
from edgecnn.models.build import ZooOptions, build
from edgecnn.models.published import RESULTS
from edgecnn.passes.deploy import deploy

GOLDEN = [  # name, MACs, trainable, total with BatchNorm statistics (EfficientNet without Keras' 7 of Normalization)
    ("lenet5", 416_520, 61_706, 61_706),
    ("alexnet", 724_406_816, 60_965_224, 60_965_224),
    ("vgg16", 15_470_264_320, 138_357_544, 138_357_544),
    ("googlenet", 1_582_671_872, 6_998_552, 6_998_552),
    ("resnet18", 1_814_073_344, 11_689_512, 11_699_112),
    ("resnet34", 3_663_761_408, 21_797_672, 21_814_696),
    ("resnet50", 3_857_973_248, 25_583_592, 25_636_712),
    ("mobilenet_v1", 568_740_352, 4_231_976, 4_253_864),
    ("mobilenet_v2", 300_774_272, 3_504_872, 3_538_984),
    ("mobilenet_v3_large", 216_589_760, 5_483_032, 5_507_432),
    ("mobilenet_v3_small", 56_510_400, 2_542_856, 2_554_968),
    ("mobilenet_v3_large_minimalistic", 209_136_704, 3_924_288, 3_948_688),
    ("mobilenet_v3_small_minimalistic", 52_288_448, 2_044_736, 2_056_848),
    ("efficientnet", 385_814_752, 5_288_548, 5_330_571 - 7),
    ("efficientnet_b0", 385_814_752, 5_288_548, 5_330_571 - 7),
    ("efficientnet_b1", 686_802_832, 7_794_184, 7_856_239 - 7),
    ("efficientnet_b2", 993_561_872, 9_109_994, 9_177_569 - 7),
    ("efficientnet_b3", 1_827_141_392, 12_233_232, 12_320_535 - 7),
    ("efficientnet_b4", 4_393_771_024, 19_341_616, 19_466_823 - 7),
    ("efficientnet_b5", 10_266_384_752, 30_389_784, 30_562_527 - 7),
    ("efficientnet_b6", 19_067_593_536, 43_040_704, 43_265_143 - 7),
    ("efficientnet_b7", 37_745_884_192, 66_347_960, 66_658_687 - 7),
    ("efficientnet_lite0", 385_187_552, 4_652_008, 4_694_024),
    ("efficientnet_lite1", 600_185_232, 5_416_680, 5_470_344),
    ("efficientnet_lite2", 859_736_272, 6_092_072, 6_150_168),
    ("efficientnet_lite3", 1_383_321_872, 8_197_096, 8_273_768),
    ("efficientnet_lite4", 2_553_034_336, 13_006_568, 13_118_936),
]
SCALES = {  # arXiv:1905.11946v5, table 2 and efficientnet_builder.py: width, depth, resolution, MACs as printed
    "efficientnet_b0": (1.0, 1.0, 224, "0.39B"),
    "efficientnet_b1": (1.0, 1.1, 240, "0.70B"),
    "efficientnet_b2": (1.1, 1.2, 260, "1.0B"),
    "efficientnet_b3": (1.2, 1.4, 300, "1.8B"),
    "efficientnet_b4": (1.4, 1.8, 380, "4.2B"),
    "efficientnet_b5": (1.6, 2.2, 456, "9.9B"),
    "efficientnet_b6": (1.8, 2.6, 528, "19B"),
    "efficientnet_b7": (2.0, 3.1, 600, "37B"),
}
LITE_SCALES = {
    "efficientnet_lite0": (1.0, 1.0, 224),
    "efficientnet_lite1": (1.0, 1.1, 240),
    "efficientnet_lite2": (1.1, 1.2, 260),
    "efficientnet_lite3": (1.2, 1.4, 280),
    "efficientnet_lite4": (1.4, 1.8, 300),
}
MBCONV_ROWS = [  # expansion, kernel, channels, repeats, stride
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
]
SMALL = {"lenet5": 32, "alexnet": 67, "googlenet": 65}
"""Resolution for the smallest runs; 32 or 48 elsewhere."""


def cost(name: str, **options: Any) -> Cost:
    return count(build(name, ZooOptions(**options), values=False))


def small(name: str, **options: Any) -> Graph:
    taken = {"classes": 5, "resolution": SMALL.get(name, 48), **options}
    if "efficientnet" not in name:
        taken["width_multiplier"] = 0.25
    return build(name, ZooOptions(**taken))


def wide(channels: float) -> int:
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def mbconv_macs(width: float, depth: float, resolution: int, *, is_lite: bool) -> int:
    """Sum the rows of arXiv:1905.11946, table 1: stem, expand, depthwise, squeeze-excite, project, head."""
    ends = 1.0 if is_lite else width
    size, inputs = -(-resolution // 2), wide(32 * ends)
    total = 27 * inputs * size**2
    for row, (t, k, c, n, s) in enumerate(MBCONV_ROWS):
        repeats = n if is_lite and row in (0, 6) else ceil(depth * n)
        for repeat in range(repeats):
            inner = inputs * t
            total += 0 if t == 1 else size**2 * inputs * inner
            size = -(-size // (s if repeat == 0 else 1))
            squeeze = 0 if is_lite else 2 * inner * int(inputs / 4)
            total += size**2 * inner * (k * k + wide(c * width)) + squeeze
            inputs = wide(c * width)
    return total + wide(1280 * ends) * (size**2 * inputs + 1000)


def resnet_macs(repeats: tuple[int, ...], *, is_bottleneck: bool) -> int:
    """Sum the rows of arXiv:1512.03385, table 1, at 224 pixels."""
    size, inputs = 56, 64
    total = 49 * 3 * 64 * 112**2
    for stage, blocks in enumerate(repeats):
        width = 64 * 2**stage
        output = width * (4 if is_bottleneck else 1)
        for block in range(blocks):
            size = size // 2 if stage and block == 0 else size
            kernels = inputs * width + 9 * width**2 + width * output if is_bottleneck else 9 * width * (inputs + width)
            shortcut = inputs * output if inputs != output else 0
            total += size**2 * (kernels + shortcut)
            inputs = output
    return total + inputs * 1000


def test_every_network_has_golden_counts() -> None:
    assert [name for name, *_ in GOLDEN] == list(registry.entries("models"))


@pytest.mark.parametrize(("name", "macs", "trainable", "total"), GOLDEN)
def test_counts_agree_with_the_derived_tables_to_the_digit(name: str, macs: int, trainable: int, total: int) -> None:
    found = cost(name)
    assert (found.macs, found.trainable, found.total) == (macs, trainable, total)
    assert found.unknown == ()


@pytest.mark.parametrize(("name", "scale"), SCALES.items())
def test_efficientnet_follows_from_the_papers_rows(name: str, scale: tuple[float, float, int, str]) -> None:
    width, depth, resolution, printed = scale
    macs = cost(name).macs
    assert macs == mbconv_macs(width, depth, resolution, is_lite=False)
    assert macs / 1e9 == pytest.approx(float(printed.rstrip("B")), rel=0.05)


@pytest.mark.parametrize(("name", "scale"), LITE_SCALES.items())
def test_efficientnet_lite_follows_from_the_papers_rows(name: str, scale: tuple[float, float, int]) -> None:
    assert cost(name).macs == mbconv_macs(*scale, is_lite=True)


def test_resnets_follow_from_the_papers_rows() -> None:
    assert cost("resnet18").macs == resnet_macs((2, 2, 2, 2), is_bottleneck=False)
    assert cost("resnet34").macs == resnet_macs((3, 4, 6, 3), is_bottleneck=False)
    assert cost("resnet50").macs == resnet_macs((3, 4, 6, 3), is_bottleneck=True)


def test_the_auxiliary_heads_of_googlenet_cost_their_parameters_and_are_marked() -> None:
    graph = build("googlenet", ZooOptions(auxiliary_heads=True), values=False)
    assert count(graph).trainable == 13_378_280
    assert [(port.name, port.is_auxiliary) for port in graph.outputs] == [
        ("logits", False),
        ("auxiliary_1", True),
        ("auxiliary_2", True),
    ]
    with pytest.raises(UsageError) as caught:
        build("googlenet", ZooOptions(auxiliary_heads=True, resolution=64), values=False)
    assert str(caught.value) == "googlenet: resolution must be at least 65 with auxiliary heads; got 64"
    validate(build("googlenet", ZooOptions(auxiliary_heads=True, resolution=65, head="softmax"), values=False))


@pytest.mark.parametrize(("name", "smallest"), [("vgg16", 32), ("alexnet", 67)])
def test_an_image_too_small_for_the_poolings_is_refused(name: str, smallest: int) -> None:
    validate(build(name, ZooOptions(resolution=smallest), values=False))
    with pytest.raises(UsageError) as caught:
        build(name, ZooOptions(resolution=smallest - 1), values=False)
    assert str(caught.value) == f"{name}: resolution must be at least {smallest}; got {smallest - 1}"


SMALLEST_OF_EACH_FAMILY = (
    "alexnet",
    "vgg16",
    "googlenet",
    "resnet18",
    "resnet50",
    "mobilenet_v3_large",
    "mobilenet_v3_small_minimalistic",
    "efficientnet_b0",
    "efficientnet_lite0",
)


@pytest.mark.parametrize("name", SMALLEST_OF_EACH_FAMILY)
def test_a_small_variant_runs_and_deploys_to_the_same_numbers(name: str) -> None:
    graph = small(name, in_channels=1)
    size = graph.tensors["image"].shape[1] or 0
    image = np.random.default_rng(0).standard_normal((2, size, size, 1)).astype(np.float32)
    found = execute(graph, {"image": image})["logits"]
    assert np.isfinite(found).all()
    assert found.std() > 0
    deployed = deploy(graph)
    again = execute(deployed.graph, {"image": image})["logits"]
    assert_allclose(again, found, rtol=0, atol=1e-4 * np.abs(found).max())
    assert count(graph).deployed == count(deployed.graph).total
    assert count(deployed.graph).macs == count(graph).macs


def test_each_family_brings_its_preprocessing() -> None:
    def pixels(name: str) -> Any:
        contract = build(name, values=False).contract
        assert contract is not None
        return contract.colour_order, contract.mean, contract.std, round(contract.crop_fraction, 3)

    assert pixels("efficientnet_b0") == ("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 0.875)
    assert pixels("efficientnet_b7")[3] == round(600 / 632, 3)
    assert pixels("efficientnet_lite0") == ("RGB", (127.0,) * 3, (128.0,) * 3, 0.875)
    assert pixels("mobilenet_v3_small") == ("RGB", (127.5,) * 3, (127.5,) * 3, 0.875)
    for name in ("resnet50", "vgg16"):
        assert pixels(name) == ("BGR", (103.939, 116.779, 123.68), (1.0,) * 3, 0.875)


def test_published_results_name_networks_that_exist_and_a_source() -> None:
    assert set(RESULTS) <= set(registry.entries("models"))
    assert all(0 < result.top_1 < 100 and result.source for result in RESULTS.values())
