"""The build recipe: what was written is read back, and nothing else gets through."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_contracts.engine_build import EngineBuild, Profile
from farrier_contracts.errors import BundleError

sizes = st.integers(0, 1 << 20)


@st.composite
def profiles(draw):
    rank = draw(st.integers(1, 5))
    columns = [sorted(draw(st.tuples(sizes, sizes, sizes))) for _ in range(rank)]
    return Profile(*(tuple(column[i] for column in columns) for i in range(3)))


recipes = st.builds(
    EngineBuild,
    profiles=st.dictionaries(st.text(max_size=20), profiles(), max_size=3),
    precisions=st.sampled_from([(), ("fp16",), ("fp16", "int8")]),
    sparse=st.booleans(),
    dla_core=st.none() | st.integers(0, 1),
    gpu_fallback=st.booleans(),
    timing_cache=st.booleans(),
    workspace=st.integers(0, 1 << 33),
    limit_s=st.floats(0.1, 3600),
    memory=st.integers(0, 1 << 34),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(recipe=recipes)
def test_a_recipe_comes_back_from_json(recipe):
    again = EngineBuild.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.digest == recipe.digest


@settings(max_examples=300)
@given(recipe=recipes, data=st.data())
def test_a_recipe_with_one_field_replaced_is_read_or_refused_in_one_sentence(recipe, data):
    document = json.loads(json.dumps(recipe.to_dict()))
    document[data.draw(st.sampled_from([*document, "more"]))] = data.draw(anything)
    try:
        read = EngineBuild.from_dict(document)
    except BundleError as refused:
        sentence = str(refused)
    else:
        sentence = "read"
        assert EngineBuild.from_dict(read.to_dict()) == read
    assert sentence == "read" or sentence.endswith(("build the bundle again", "update the agent"))


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (3, "the recipe must be"),
        ({"workspace": True}, "workspace"),
        ({"workspace": 1 << 41}, "workspace"),
        ({"workspace": -1}, "workspace"),
        ({"limit_s": 0}, "limit_s"),
        ({"limit_s": float("nan")}, "limit_s"),
        ({"dla_core": 16}, "dla_core"),
        ({"precisions": ["fp8"]}, "precisions"),
        ({"precisions": ["fp16"], "strongly_typed": True}, "strongly typed"),
        ({"plugins": ["/tmp/evil.so"]}, "'plugins'"),
        ({"profiles": {"x": {"least": [2], "best": [1], "most": [3]}}}, "'x'"),
        ({"profiles": {"x": {"least": [1], "best": [1, 2], "most": [3]}}}, "'x'"),
        ({"profiles": {"x": {"least": [1], "best": [1]}}}, "'x'"),
        ({"profiles": {"x": {"least": [], "best": [], "most": []}}}, "'x'"),
        ({"profiles": {"x": {"least": [1.0], "best": [1], "most": [3]}}}, "'x'"),
    ],
)
def test_a_wrong_recipe_is_named(document, word):
    with pytest.raises(BundleError, match=word):
        EngineBuild.from_dict(document)


def test_what_does_not_change_the_engine_does_not_change_the_digest():
    assert EngineBuild(limit_s=1.0, memory=5, timing_cache=False).digest == EngineBuild().digest
    assert EngineBuild(workspace=1).digest != EngineBuild().digest
