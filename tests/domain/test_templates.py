"""`{{context.…}}` is filled with values, and never becomes part of a shell's syntax."""

import pytest

from director.domain.templates import TemplateError, fill

CONTEXT = {"name": "ai-1", "deep": {"list": [1, True]}, "evil": "x; rm -rf /"}


def test_a_template_becomes_the_value_that_its_path_names() -> None:
    assert fill("hello {{context.name}}, {{ context.name }}", CONTEXT) == "hello ai-1, ai-1"


def test_what_is_no_text_is_spelled_as_json() -> None:
    assert fill("{{context.deep.list}}", CONTEXT) == "[1, true]"


def test_other_braces_stay_as_they_are() -> None:
    text = "{{ github.ref }} {name} {{context.}} ${X}"
    assert fill(text, CONTEXT) == text


@pytest.mark.parametrize("path", ["nobody", "name.first", "deep.none"])
def test_a_path_without_a_value_is_an_error_that_names_it(path: str) -> None:
    with pytest.raises(TemplateError, match=path.rpartition(".")[2]):
        fill(f"{{{{context.{path}}}}}", CONTEXT)


@pytest.mark.parametrize("sign", list(";|&$`'\"\\\n<>(){}[]*?!#~^\t"))
def test_no_sign_that_a_shell_interprets_goes_into_a_shell_command(sign: str) -> None:
    with pytest.raises(TemplateError, match="list"):
        fill("say {{context.value}}", {"value": f"a{sign}b"}, shell=True)


def test_a_filled_value_is_not_filled_again() -> None:
    assert fill("{{context.a}}", {"a": "{{context.b}}", "b": "no"}) == "{{context.b}}"
