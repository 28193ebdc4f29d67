"""What a CPU's instruction set does to 8-bit results: read, said, and counted on the golden integers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph
from edgecnn.instruction_set import describe, instruction_set, parse_sysctl, read_linux, saturates
from edgecnn.quantization.parameters import per_channel, per_tensor
from edgecnn.saturation import pair_errors, saturating_layers
from tests.quantized_graphs import GRAPHS, values

ZEN = "processor : 0\nflags\t\t: fpu sse avx2 avx512f avx512_vnni\n"


def cpu_info(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text)
    return path


def test_linux_tells_what_every_core_has(tmp_path: Path) -> None:
    assert read_linux(cpu_info(tmp_path, ZEN)) == ("avx2", "avx512f", "avx512_vnni")
    arm = "processor : 0\nFeatures : asimd asimddp i8mm\n\nprocessor : 1\nFeatures : asimd asimddp\n"
    assert read_linux(cpu_info(tmp_path, arm)) == ("dotprod",)
    assert read_linux(cpu_info(tmp_path, "flags : fpu\n")) == ()


def test_what_is_not_told_is_unknown_and_not_absent(tmp_path: Path) -> None:
    assert read_linux(tmp_path / "none") is None
    assert read_linux(cpu_info(tmp_path, "processor : 0\n")) is None
    assert parse_sysctl("") is None
    assert saturates(None) is None
    assert describe(None).startswith("Instruction set unknown")


def test_a_mac_tells_its_own_keys() -> None:
    told = "hw.optional.avx2_0: 1\nhw.optional.avx512f: 1\nhw.optional.avx512vnni: 0\n"
    assert parse_sysctl(told) == ("avx2", "avx512f")
    assert saturates(parse_sysctl(told)) is True


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (("avx2",), True),
        (("avx2", "avx512f"), True),
        (("avx2", "avx_vnni"), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("avx2", "avx512f", "amx_int8"), False),
        (("dotprod", "i8mm"), False),
        ((), False),
    ],
)
def test_only_x86_without_vnni_saturates(found: tuple[str, ...], wanted: bool) -> None:
    assert saturates(found) is wanted
    assert ("CAUTION" in describe(found)) is wanted


def test_this_machine_is_read_once() -> None:
    assert instruction_set() is instruction_set()


def test_pairs_are_neighbours_and_an_odd_last_product_stands_alone() -> None:
    activations, weights = np.full((1, 1, 5), 255), np.full((1, 5, 1), 127)
    errors, over = pair_errors(activations, weights)
    assert over == 2
    assert errors.tolist() == [[[2 * (32767 - 2 * 255 * 127)]]]
    apart = weights * np.array([1, 0, 1, 0, 1])[:, None]
    assert pair_errors(activations, apart)[1] == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]), st.integers(1, 9))
def test_pair_errors_are_those_of_a_loop(seed: int, groups: int, products: int) -> None:
    rng = np.random.default_rng(seed)
    a, w = rng.integers(0, 256, (groups, 3, products)), rng.integers(-128, 128, (groups, products, 4))
    errors, over = pair_errors(a, w)
    wanted, count = np.zeros_like(errors), 0
    for g, p, c in np.ndindex(*errors.shape):
        for k in range(0, products, 2):
            total = sum(int(a[g, p, i]) * int(w[g, i, c]) for i in range(k, min(k + 2, products)))
            clamped = max(-32768, min(32767, total))
            wanted[g, p, c] += clamped - total
            count += clamped != total
    assert (errors.tolist(), over) == (wanted.tolist(), count)


def test_seven_bits_never_saturate() -> None:
    for weight in (-64, 63):
        assert pair_errors(np.full((1, 1, 2), 255), np.full((1, 2, 1), weight))[1] == 0


def layer(
    weights: Array, *, dtype: str = "int8", op: ops.Conv | None = None, out_scale: float = 1.0, size: int = 1
) -> Graph:
    """A quantized Conv whose input and kernel have scale 1, so that integers are the numbers."""
    b = GraphBuilder("tried", initialise=he_normal(0))
    x = b.input("image", (1, size, size, 4))
    groups = 4 // weights.shape[2]
    conv = op or ops.Conv(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=groups)
    kernel = b.constant("kernel", weights.astype(np.float32))
    y = b.node("y", conv, x, kernel)
    graph = b.finish({"result": y})
    tensors = {
        x: replace(graph.tensors[x], quantization=per_tensor(1.0, -128 if dtype == "int8" else 0, dtype)),
        y: replace(graph.tensors[y], quantization=per_tensor(out_scale, 0, "int8")),
        kernel: replace(
            graph.tensors[kernel],
            data=weights.astype(np.int8),
            quantization=per_channel(np.ones(weights.shape[-1]), weights.ndim - 1),
        ),
    }
    return replace(graph, tensors={**graph.tensors, **tensors})


def pixel(*values: int) -> dict[str, Array]:
    return {"image": np.array(values, np.float32).reshape(1, 1, 1, 4)}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_layer_that_saturates_is_found_with_the_steps_that_it_loses(dtype: str) -> None:
    weights = np.zeros((1, 1, 4, 2))
    weights[0, 0, :, 0] = 127, 127, -127, -127
    (found,) = saturating_layers(layer(weights, dtype=dtype, out_scale=1000.0), pixel(255, 255, 0, 0))
    assert (found.node, found.pairs, found.outputs, found.sampled) == ("y", 0.25, 0.5, 2)
    assert found.largest_step == 65 - 33  # 64770 saturates at 32767


def test_the_same_products_paired_otherwise_lose_nothing() -> None:
    weights = np.zeros((1, 1, 4, 1))
    weights[0, 0, :, 0] = 127, -127, 127, -127
    (found,) = saturating_layers(layer(weights), pixel(255, 255, 255, 255))
    assert (found.pairs, found.outputs, found.largest_step) == (0, 0, 0)


def test_a_depthwise_layer_has_nothing_to_pair_and_is_left_out() -> None:
    assert saturating_layers(layer(np.full((1, 1, 1, 4), 127.0)), pixel(255, 255, 255, 255)) == ()


def naive_outputs(image: Array, weights: Array, *, saturating: bool) -> Array:
    """Return what the layer of the test below gives, one pair after the other; padding is 0, which -128 stands for."""
    padded = np.pad(image.astype(int) + 128, ((0, 0), (1, 0), (0, 1), (0, 0)))
    found = np.zeros((len(image), 3, 5, 6), int)
    for n, row, column, out in np.ndindex(*found.shape):
        group = out // 3
        window = padded[n, 2 * row : 2 * row + 2, column : column + 2, 2 * group : 2 * group + 2].reshape(-1)
        products = window * weights[:, :, :, out].reshape(-1)
        sums = products[0::2] + products[1::2]
        found[n, row, column, out] = (np.clip(sums, -32768, 32767) if saturating else sums).sum()
    return np.clip(np.rint(np.maximum(found, 0) / 500), -128, 127).astype(int)


def test_counts_are_those_of_a_loop_with_padding_strides_and_groups() -> None:
    rng = np.random.default_rng(0)
    conv = ops.Conv(stride=(2, 1), padding=((1, 0), (0, 1)), dilation=(1, 1), groups=2, activation=ops.ReLU())
    weights = rng.integers(-127, 128, (2, 2, 2, 6))
    graph, image = layer(weights, op=conv, out_scale=500.0, size=5), rng.integers(-128, 128, (2, 5, 5, 4))
    right, wrong = (naive_outputs(image, weights, saturating=saturating) for saturating in (False, True))
    stored = {"image": image.astype(np.int8)}
    np.testing.assert_array_equal(execute(graph, stored, stored=True)["result"], right)
    (found,) = saturating_layers(graph, stored, positions=10**6)
    assert (found.sampled, found.largest_step) == (right.size, np.abs(wrong - right).max())
    assert found.outputs == np.count_nonzero(wrong - right) / right.size > 0


@pytest.mark.parametrize("name", ["mobile", "mobile_uint8"])
def test_a_whole_network_is_measured_though_it_is_tied_to_its_batch(name: str) -> None:
    graph = GRAPHS[name]
    found = saturating_layers(graph, values(graph, batch=3), positions=5)
    assert [each.node for each in found] == ["stem", "a/expand", "a/project", "bb/expand", "bb/project", "head", "y"]
    assert [each.sampled for each in found] == [5 * n for n in (8, 24, 12, 48, 12, 64)] + [3 * 10]
    assert all(0 <= each.outputs <= 1 and 0 <= each.pairs <= 1 for each in found)
