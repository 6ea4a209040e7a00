"""Which templates may lay out the lake, and what is said of those that may not."""

import pytest

from ingestkit import layers, layouts
from ingestkit.settings import PipelineSettings
from ingestkit.shapes import checked

PIPELINE = """
pipeline: shop
source: {{connection: drop, batches: {{folders: '(?P<batch>.+)', kind: {kind}}}}}
models: {{sale: {{columns: {{id: {{}}}}}}}}
layout: '{layout}'
"""


@pytest.mark.parametrize(
    "template",
    ["{model}/{batch}", "{batch}/{model}", "model={model}/batch={batch}", "v1/{year}/{year}-{month}/{model}/d.{batch}"],
)
def test_folders_that_tell_each_batch_of_each_model_are_a_layout(template: str) -> None:
    assert layouts.refusal(template) is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{model}", "should have {batch} once"),
        ("{model}/{batch}/{batch}", "should have {batch} once"),
        ("", "should be folders"),
        ("/{model}/{batch}", "should be folders"),
        ("{model}//{batch}", "should be folders"),
        ("{model}/{batch}/" + "x" * 200, "should be folders"),
        ("../{model}/{batch}", "'..' is no name of a folder"),
        ("a b/{model}/{batch}", "'a b' is no name of a folder"),
        ("{{model}}/{model}/{batch}", "'{{model}}' is no name of a folder"),
        ("{modle}/{batch}", "there is no field {modle}; did you mean {model}?"),
        ("{quarter}/{model}/{batch}", "there is no field {quarter}; known are {model}, {batch}, {year}"),
        ("{}/{model}/{batch}", "there is no field {}; known are"),
        ("{model}{batch}", "{model} should be the only field of its folder"),
        ("{year}-{batch}/{model}", "{batch} should be the only field of its folder"),
        ("{model!r}/{batch}", "{model} is all that may be said"),
        ("{model/{batch}", "cannot be read"),
    ],
)
def test_what_is_no_layout_is_told_why(template: str, said: str) -> None:
    assert said in str(layouts.refusal(template))


def problems(layout: str, kind: str) -> tuple[str, ...]:
    text = PIPELINE.format(layout=layout, kind=kind)
    return checked(PipelineSettings, layers.read_text(text, "shop.yaml", "file"))[1]


def test_a_layout_that_is_none_is_told_with_its_line() -> None:
    assert problems("{model}/{batch}", "text") == ()
    assert problems("{modle}/{batch}", "text") == (
        "shop.yaml:5: layout: there is no field {modle}; did you mean {model}?",
    )


def test_years_are_of_batches_that_are_dates() -> None:
    assert problems("{year}/{model}/{batch}", "date") == ()
    [said] = problems("{year}/{model}/{batch}", "text")
    assert said.endswith("layout: {year} is of batches of kind date")
