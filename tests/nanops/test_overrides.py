"""Overrides go into a file and come back equal; a file that is not one is refused with its name and the key."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nanops
from nanops import InputError, Tolerance
from nanops.conversion.options import OVERRIDABLE
from nanops.overrides import _KINDS
from nanops.tolerance import KINDS
from tests.nanops.images import same_bits
from tests.nanops.nets import Modules, image, seeded

FORMAT = "nanops overrides 1"
numbers = st.floats(0, 1e30) | st.integers(0, 10**6)
tolerances = st.builds(Tolerance, st.sampled_from([k for k in KINDS if k != "ulps"]), numbers) | st.builds(
    Tolerance, st.just("ulps"), st.integers(0, 2**40)
)
options = st.fixed_dictionaries({}, optional={
    "threshold": st.floats(0, 1, exclude_min=True) | st.just(1), "fill": st.sampled_from(["mean", "max_normal"]),
    "sigma": numbers, "tolerance": tolerances, "max_ties": st.integers(1, 100), "count_padding": st.booleans(),
    "uniform": st.booleans(),
})  # fmt: skip


@given(overrides=st.dictionaries(st.text(max_size=8), options, max_size=4), about=st.none() | st.dictionaries(
    st.text(max_size=4), st.none() | st.booleans() | st.text(max_size=4) | st.lists(st.integers())))  # fmt: skip
def test_what_was_saved_is_loaded(tmp_path_factory, overrides, about):
    path = tmp_path_factory.mktemp("overrides") / "file.json"
    nanops.save_overrides(path, overrides, about)
    found = nanops.load_overrides(path)
    assert found == overrides
    assert repr(found) == repr(overrides)  # also the order, in which the last match decides, and the types of numbers
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["format"] == FORMAT and content.get("about") == about


def test_every_option_but_the_generator_has_a_place_in_a_file():
    assert {*_KINDS, "generator"} == set(OVERRIDABLE)


def test_a_file_written_by_hand_is_read(tmp_path):
    path = tmp_path / "options.json"
    path.write_text("""{"about": {"why": ["one", 2]}, "format": "nanops overrides 1", "overrides": {
        "*": {"threshold": 1, "uniform": true, "tolerance": {"kind": "ulps", "value": 4}},
        "conv1": {"tolerance": {"value": 1e-7, "kind": "isclose"}, "fill": "mean", "max_ties": 2}}}""")
    expected = {"*": {"threshold": 1, "uniform": True, "tolerance": Tolerance("ulps", 4)},
                "conv1": {"tolerance": nanops.PUBLISHED_CODE, "fill": "mean", "max_ties": 2}}  # fmt: skip
    assert nanops.load_overrides(path) == nanops.load_overrides(str(path)) == expected


@pytest.mark.parametrize("kind", [str, Path])
def test_a_conversion_by_a_file_is_that_by_its_overrides(tmp_path, kind):
    overrides = {"conv*": {"threshold": 1.0}, "conv2": {"threshold": 0.2}, "pool": {"tolerance": Tolerance("ulps", 2)}}
    path = kind(tmp_path / "options.json")
    nanops.save_overrides(path, overrides)
    found, expected, without = (nanops.convert(seeded(Modules()), final="keep", overrides=o)(image())
                                for o in (path, overrides, None))  # fmt: skip
    assert same_bits(found, expected) and not same_bits(found, without)
    with pytest.raises(InputError, match="glob that matches a layer, got 'convo1'; did you mean 'conv1'"):
        nanops.save_overrides(path, {"convo1": {}})
        nanops.convert(Modules(), overrides=path)


def test_a_draw_of_a_file_needs_the_generator_of_the_call(tmp_path):
    path = tmp_path / "options.json"
    nanops.save_overrides(path, {"conv2": {"fill": "max_normal"}})
    with pytest.raises(InputError, match=r"a torch\.Generator for fill='max_normal'"):
        nanops.convert(Modules(), overrides=path)
    converted = nanops.convert(Modules().eval(), overrides=path, generator=torch.Generator().manual_seed(0))
    assert converted(image()).isfinite().all()


def file(overrides):
    return json.dumps({"format": FORMAT, "overrides": overrides})


BAD = {
    "no JSON": ('{"format": ', "to be JSON"),
    "NaN": ('{"format": "nanops overrides 1", "overrides": {"*": {"sigma": NaN}}}', "to be JSON, but JSON has no NaN"),
    "a key twice": ('{"format": "nanops overrides 1", "overrides": {"a": {}, "a": {}}}', "key 'a' stands in it twice"),
    "deep": ("[" * 10**5, "to be JSON"),
    "a list": ("[]", f"of the format '{FORMAT}', got 'list'"),
    "no format": ('{"overrides": {}}', f"of the format '{FORMAT}', got None"),
    "another format": ('{"format": "nanops overrides 2", "overrides": {}}', "got 'nanops overrides 2'"),
    "another key": ('{"format": "nanops overrides 1", "overides": {}}', "got 'overides'; did you mean 'overrides'"),
    "no overrides": ('{"format": "nanops overrides 1"}', "an object as overrides in .*, got nothing"),
    "a list of overrides": (file([]), "an object as overrides in .*, got a list"),
    "an about": ('{"format": "nanops overrides 1", "overrides": {}, "about": "me"}', "as about in .*, got a str"),
    "options": (file({"conv1": 3}), "an object as overrides of 'conv1' in .*, got a int"),
    "an option": (file({"conv1": {"treshold": 0.5}}), "for 'conv1' in .*, got 'treshold'; did you mean 'threshold'"),
    "the pooling": (file({"conv1": {"pooling": "hybrid"}}), "for 'conv1' in .*, got 'pooling'"),
    "a generator": (file({"conv1": {"generator": 3}}), "no generator for 'conv1' in"),
    "a threshold": (file({"conv1": {"threshold": 2}}), "threshold of 'conv1': .*, got 2"),
    "a threshold in words": (file({"conv1": {"threshold": "0.5"}}), "a number as threshold of 'conv1' in .*'0.5'"),
    "a truth": (file({"conv1": {"threshold": True}}), "a number as threshold of 'conv1' in .*, got True"),
    "no truth": (file({"conv1": {"uniform": 1}}), "true or false as uniform of 'conv1' in .*, got 1"),
    "ties": (file({"conv1": {"max_ties": 1.0}}), "an integer as max_ties of 'conv1' in .*, got 1.0"),
    "no ties": (file({"conv1": {"max_ties": 0}}), "max_ties of 'conv1': .*, got 0"),
    "null": (file({"conv1": {"sigma": None}}), "a number as sigma of 'conv1' in .*, got None"),
    "a fill": (file({"conv1": {"fill": "men"}}), "fill of 'conv1': .*did you mean 'mean'"),
    "infinity": (file({"conv1": {"sigma": 7}}).replace("7", "1e999"), "sigma of 'conv1': .*got inf"),
    "a number as tolerance": (file({"conv1": {"tolerance": 1e-7}}), "as tolerance of 'conv1' in .*, got 1e-07"),
    "a part of a tolerance": (file({"conv1": {"tolerance": {"kind": "ulps"}}}), "as tolerance of 'conv1'"),
    "more than a tolerance": (file({"conv1": {"tolerance": {"kind": "ulps", "value": 1, "x": 1}}}), "as tolerance of"),
    "a tolerance's kind": (file({"conv1": {"tolerance": {"kind": "ulp", "value": 1}}}), "did you mean 'ulps'"),
    "a tolerance's value": (file({"conv1": {"tolerance": {"kind": "ulps", "value": 0.5}}}), "of 'conv1': .*0.5"),
    "a tolerance's text": (file({"conv1": {"tolerance": {"kind": "ulps", "value": "1"}}}), "as tolerance of 'conv1'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_name_and_the_key(tmp_path, case):
    text, sentence = BAD[case]
    path = tmp_path / "options.json"
    path.write_text(text)
    for read in (nanops.load_overrides, lambda p: nanops.convert(Modules(), overrides=p)):
        with pytest.raises(InputError, match=sentence) as refusal:
            read(path)
        assert str(path) in str(refusal.value) and str(refusal.value)[-1] in ".?"


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{}")
    for name, sentence in (("missing.json", "No such file"), (".", "Is a directory"), ("bytes.json", "to be JSON")):
        with pytest.raises(InputError, match=sentence):
            nanops.load_overrides(tmp_path / name)
    for wrong in (3, [("conv1", {})]):
        with pytest.raises(InputError, match="overrides as a mapping or the path of a file, got a"):
            nanops.convert(Modules(), overrides=wrong)


REFUSED = {
    "a generator": ({"conv1": {"generator": torch.Generator()}}, None, "no file can hold one, give it to convert"),
    "an option": ({"conv1": {"treshold": 0.5}}, None, "did you mean 'threshold'"),
    "a value": ({"conv1": {"threshold": 0.0}}, None, "threshold of 'conv1'"),
    "a tensor": ({"conv1": {"threshold": torch.tensor(0.5)}}, None, "a number as threshold of 'conv1'"),
    "a tolerance": ({"conv1": {"tolerance": 1e-7}}, None, "a tolerance as tolerance of 'conv1'"),
    "a glob": ({3: {}}, None, "Expected globs in the overrides of .*, got 3"),
    "a list": ([], None, "an object as overrides"),
    "an about": ({}, "me", "an object as about"),
    "a thing": ({}, {"model": torch.nn.Identity()}, "an 'about' that JSON can hold"),
    "a number": ({}, {"loss": float("nan")}, "an 'about' that JSON can hold"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_file_can_hold_is_refused_and_the_old_file_stays(tmp_path, case):
    overrides, about, sentence = REFUSED[case]
    path = tmp_path / "options.json"
    nanops.save_overrides(path, {"conv1": {"threshold": 0.3}})
    with pytest.raises(InputError, match=sentence):
        nanops.save_overrides(path, overrides, about)
    assert nanops.load_overrides(path) == {"conv1": {"threshold": 0.3}} and os.listdir(tmp_path) == ["options.json"]


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "options.json"
    nanops.save_overrides(path, {"conv1": {"threshold": 0.3}})

    def fail(descriptor):
        assert [n for n in os.listdir(tmp_path) if n != "options.json"]  # it is written under another name
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=r"can be written, got .*options\.json: No space left"):
        nanops.save_overrides(path, {"conv2": {"threshold": 0.4}})
    assert nanops.load_overrides(path) == {"conv1": {"threshold": 0.3}} and os.listdir(tmp_path) == ["options.json"]


def test_a_place_where_no_file_can_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "options.json", tmp_path / "file" / "options.json"):
        with pytest.raises(InputError, match=r"a folder for .*, which is none"):
            nanops.save_overrides(path, {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"can be written, got .*folder: Is a directory"):
        nanops.save_overrides(tmp_path / "folder", {})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
