"""YAML is read as kubectl reads it, and what is wrong is told with its line."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.api.mutations import RIGHT

from tailrace.api.documents import read_documents
from tailrace.api.verdict import load_documents


def value_of(text: str) -> object:
    (document,) = read_documents(text)
    assert document.error is None, document.error
    return document.value


def error_of(text: str) -> str:
    *_, document = read_documents(text)
    assert document.error is not None
    return str(document.error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-1_000", -1000),
        ("010", 8),
        ("-0o17", -15),
        ("0x1F", 31),
        ("0b11", 3),
        ("089", 89),
        ("3.0", 3),
        ("1e3", 1000),
        (".5", 0.5),
        ("1.5", 1.5),
        ("2026-01-02", "2026-01-02"),
        ("1:30", "1:30"),
        ("10.0.0.7:8000", "10.0.0.7:8000"),
        ("25%", "25%"),
        ("'8'", "8"),
        (".inf", ".inf"),
    ],
)
def test_a_scalar_means_what_kubectl_takes_it_for(text: str, value: object) -> None:
    found = value_of(f"key: {text}")
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


def test_documents_are_told_apart_and_empty_ones_skipped() -> None:
    text = "a: 1\n---\n# nothing\n---\nb: 2\n"
    assert [(document.line, document.value) for document in read_documents(text)] == [(1, {"a": 1}), (5, {"b": 2})]


def test_anchors_and_merges_are_written_out() -> None:
    assert value_of("base: &b {x: 1, y: 1}\nown: {<<: *b, y: 2}") == {"base": {"x": 1, "y": 1}, "own": {"x": 1, "y": 2}}
    assert value_of("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}")["c"] == {"x": 1, "y": 2}  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1\n", "line 3: not YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the field a stands twice"),
        ("a: 1\n1: 2\n'1': 3\n", "line 3: the field 1 stands twice"),
        ("x: 1\ny: !!python/object/apply:os.system [ls]\n", "line 2: the tag tag:yaml.org,2002:python"),
        ("x: !secret s\n", "line 1: the tag !secret is not allowed"),
        ("x: !!int nonsense\n", "line 1: 'nonsense' is not a number"),
        ("x: 18446744073709551616\n", "line 1: '18446744073709551616' is not a number, or too large"),
        (f"x: 0x{'f' * 5000}\n", f"line 1: '0x{'f' * 58}...' is not a number"),
        ("x: !!float 1e999\n", "line 1: '1e999' is not a number"),
        ("a: &a [*a]\n", "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        ("? [1]\n: 2\n", "line 1: a field's name must be a plain word"),
        ("a: {<<: 3}\n", "line 1: << must be given a mapping"),
        ("a: \x00\n", "not YAML"),
        ("a: *nowhere\n", "not YAML"),
    ],
)
def test_what_can_not_be_read_is_told_with_its_line(text: str, said: str) -> None:
    assert said in error_of(text)


def test_a_small_text_can_not_become_a_huge_value() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "too large once its anchors are written out" in error_of("\n".join(lines))


@given(st.text(alphabet="ab:[]{}&*!|>-#'\"\n %0x_.e~<,?\t"))
def test_no_text_raises(text: str) -> None:
    assert all(verdict.server is None for verdict in load_documents(text))


FILE = """\
# two servers and a mistake
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {name: one}
spec: {models: [{name: m}], endpoints: [{address: "10.0.0.7:8000"}]}
---
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {name: two}
spec: {models: [{name: m}], endpoints: [{address: 10.0.0.8}], capacity: 0}
---
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {name: one}
spec: {models: [{name: m}], endpoints: [{address: "10.0.0.9:8000"}]}
---
kind: Service
"""


def test_a_file_is_judged_document_by_document() -> None:
    one, two, again, service = load_documents(FILE)
    assert (one.line, one.name, one.problems) == (2, "one", ())
    assert one.server is not None
    assert one.server.spec.endpoints is not None
    assert (two.line, two.name, two.server) == (7, "two", None)
    assert [problem.path for problem in two.problems] == ["spec.endpoints[0].address", "spec.capacity"]
    assert (again.name, again.server) == ("one", None)
    assert [str(problem) for problem in again.problems] == [
        "metadata.name: one is described at line 2 already; give it another name"
    ]
    assert "kind: must be 'InferenceServer', not the text 'Service'" in [str(problem) for problem in service.problems]


def test_documents_before_a_syntax_error_are_still_judged() -> None:
    right, broken = load_documents("\n".join(FILE.splitlines()[:5]) + "\n---\nspec: [\n")
    assert right.server is not None
    assert broken.line >= 7
    assert "not YAML" in str(broken.problems[0])


@pytest.mark.parametrize("text", ["!!map x", "!!seq x", "!!str [x]", "!!int {}", "a: !!seq {b: c}", "a: !!map [b]"])
def test_a_tag_that_does_not_fit_its_value_is_not_allowed(text: str) -> None:
    assert "is not allowed; write a plain value" in error_of(text)


def test_an_escape_for_no_character_is_said() -> None:
    assert "stands for no character" in error_of(r'"\UFFFFFFFF"')


def test_the_same_name_in_two_namespaces_is_fine() -> None:
    first = "\n".join(FILE.splitlines()[:5])
    second = first.replace("name: one", "name: one, namespace: other")
    assert [verdict.server is not None for verdict in load_documents(f"{first}\n---\n{second}")] == [True, True]


def test_the_right_documents_say_nothing_when_they_come_as_yaml() -> None:
    text = yaml.safe_dump_all(RIGHT.values())
    assert [verdict.problems for verdict in load_documents(text)] == [(), (), (), ()]
