"""Recipes: names of precisions, overrides by pattern, JSON there and back, and hostile JSON."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputFileError, UnknownNameError, UsageError
from edgecnn.quantization.precision import USUAL, parse_precision
from edgecnn.quantization.recipe import CHOICES, FLAGS, LARGEST_BYTES, Recipe, load_recipe

STATIC = st.sampled_from(["static_w8_a8", "static_w7_a8", "static_w8_a16", "static_w2_a16"])
PRECISIONS = st.one_of(STATIC, st.sampled_from(["float32", "dynamic_w8", "weight_only_w4"]))
RECIPES = st.builds(
    Recipe,
    precision=STATIC,
    overrides=st.lists(st.tuples(st.text(min_size=1), PRECISIONS), max_size=3).map(tuple),
    **{name: st.sampled_from(choices) for name, choices in CHOICES.items()},
    **{name: st.booleans() for name in FLAGS},
)


def written(text: str | bytes, folder: Path) -> str:
    path = folder / "recipe.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return str(path)


@pytest.mark.parametrize(
    ("name", "kind", "weights", "activations", "limit"),
    [
        ("float32", "float32", None, "float32", 127),
        ("dynamic_w8", "dynamic", 8, "float32", 127),
        ("weight_only_w4", "weight_only", 4, "float32", 7),
        ("static_w8_a8", "static", 8, "int8", 127),
        ("static_w7_a8", "static", 7, "int8", 63),
        ("static_w2_a16", "static", 2, "int16", 1),
    ],
)
def test_a_name_says_kind_and_bits(name: str, kind: str, weights: int | None, activations: str, limit: int) -> None:
    found = parse_precision(name)
    assert (found.kind, found.weight_bits, found.activation_dtype) == (kind, weights, activations)
    assert found.weight_limit == limit
    assert found.is_static == (kind == "static")


@pytest.mark.parametrize(
    "name", ["", "int8", "static_w8", "static_w1_a8", "static_w9_a8", "static_w8_a4", "dynamic_w8_a8"]
)
def test_another_name_is_refused_with_the_usual_ones(name: str) -> None:
    with pytest.raises(UsageError, match=f"static_w8_a16 .w2 to w8, a8 or a16. was wanted; got {name!r}"):
        Recipe(precision=name)
    assert all(parse_precision(each) for each in USUAL)


def test_the_first_pattern_that_fits_holds() -> None:
    recipe = Recipe(overrides=(("head/box", "float32"), ("head/*", "static_w8_a16"), ("*", "weight_only_w8")))
    found = [recipe.precision_of(name).name for name in ("head/box", "head/score", "stem", "HEAD/box")]
    assert found == ["float32", "static_w8_a16", "weight_only_w8", "weight_only_w8"]
    assert Recipe(overrides=(("a", "float32"),)).precision_of("stem").name == "static_w8_a8"


def test_an_override_alone_can_ask_for_a_calibration() -> None:
    assert not Recipe(precision="float32").is_static
    assert Recipe(precision="float32", overrides=(("stem", "static_w8_a8"),)).is_static


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"io": "int16"}, "recipe: io must be one of float32, int8, uint8; got 'int16'"),
        ({"observer": "max"}, "recipe: observer must be one of min_max, moving_average"),
        ({"scales": "group"}, "recipe: scales must be one of channel, tensor; got 'group'"),
        ({"rounding": "up"}, "recipe: rounding must be one of nearest, balanced.*; got 'up'"),
        ({"bias_correction": "yes"}, "recipe: bias_correction must be one of none, analytic, empirical; got 'yes'"),
        (
            {"precision": "dynamic_w8", "io": "int8"},
            "inputs and outputs of int8 need a static precision; got dynamic_w8",
        ),
        ({"precision": "float16", "overrides": (("a", "float32"),)}, "float16 is for a whole network"),
        ({"overrides": (("a", "float16"),)}, "float16 is for a whole network"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe(**wrong)


def test_a_pattern_that_fits_no_node_is_a_misspelling() -> None:
    recipe = Recipe(overrides=(("block_*", "float32"), ("haed", "float32")))
    with pytest.raises(UnknownNameError, match=r"'haed' fits none\. Did you mean 'head'"):
        recipe.refuse_unmatched(iter(["block_1", "head"]))
    with pytest.raises(UnknownNameError, match=r"'block_\*' fits none\. `edgecnn cost` lists the layers"):
        recipe.refuse_unmatched(["other"])
    recipe.refuse_unmatched(["block_1", "haed"])


@given(RECIPES)
def test_json_gives_the_same_recipe(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.getbasetemp() / "recipe.json"
    path.write_text(recipe.to_json(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_what_a_file_leaves_out_is_as_usual(tmp_path: Path) -> None:
    assert load_recipe(written('{"schema_version": 1}', tmp_path)) == Recipe()
    assert load_recipe("static_w8_a16") == Recipe(precision="static_w8_a16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        (b"\xff\xfe\x00{", "cannot be read from it"),
        ("[" * 100_000, "bytes was wanted"),
        ("[" * 60_000, "cannot be read from it"),
        ("[]", "an object of schema_version 1 was wanted"),
        ('{"precision": "float32"}', "an object of schema_version 1 was wanted"),
        ('{"schema_version": 2}', "an object of schema_version 1 was wanted"),
        ('{"schema_version": 1, "bits": 8}', "the field 'bits' is not known"),
        ('{"schema_version": 1, "precision": 8}', "precision has the wrong type: 8"),
        ('{"schema_version": 1, "precision": "int8"}', "one of float32, float16"),
        ('{"schema_version": 1, "equalize": 1}', "equalize has the wrong type: 1"),
        ('{"schema_version": 1, "io": null}', "io has the wrong type: None"),
        ('{"schema_version": 1, "overrides": {"a": "float32"}}', "overrides has the wrong type"),
        ('{"schema_version": 1, "overrides": [["a"]]}', "overrides has the wrong type"),
        ('{"schema_version": 1, "overrides": [["a", 1]]}', "overrides has the wrong type"),
        ('{"schema_version": 1, "overrides": ["ab"]}', "overrides has the wrong type"),
        ('{"schema_version": 1, "overrides": [["a", "int8"]]}', "one of float32, float16"),
        (f'{{"schema_version": {"9" * 5000}}}', "cannot be read from it"),
    ],
)
def test_hostile_json_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = written(text, tmp_path)
    with pytest.raises(InputFileError, match=message) as found:
        load_recipe(path)
    assert path in str(found.value)


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match=r"a recipe was wanted; there is|was wanted; got"):
            load_recipe(str(path))
    padded = Recipe().to_json() + " " * LARGEST_BYTES
    with pytest.raises(InputFileError, match=f"at most {LARGEST_BYTES} bytes was wanted"):
        load_recipe(written(padded, tmp_path))


def test_the_json_is_for_people_too() -> None:
    data = json.loads(replace(Recipe(), overrides=(("a*", "float32"),)).to_json())
    assert data["schema_version"] == 1
    assert data["overrides"] == [["a*", "float32"]]
