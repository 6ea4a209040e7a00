"""The sample deliveries: what the script makes, and what the opendata contract says of them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ingestkit.model import Work
from ingestkit.pipeline import Pipeline
from ingestkit.settings import PipelineSettings
from ingestkit.stages.validate import validate
from tests.make_samples import FOLDERS, deliveries, packages
from tests.unit.test_validate import context, land

CONFIG = Path(__file__).parent.parent.parent / "config"


def pipeline() -> Pipeline:
    document = yaml.safe_load((CONFIG / "pipelines" / "opendata.yaml").read_text())
    return Pipeline(PipelineSettings.model_validate(document))


def validated(scratch: Path, batch: str) -> Iterator[Work]:
    opendata = pipeline()
    ctx = replace(context(scratch), pipeline=opendata, batch=batch)
    for model in opendata.models:
        pattern = re.compile(opendata.model(model).files or "")
        folder = CONFIG / "samples" / "opendata" / batch
        paths = [path for path in sorted(folder.iterdir()) if pattern.fullmatch(path.name)]
        files = [land(ctx, f"{batch}/{path.name}", path.read_bytes()) for path in paths]
        assert files, f"{model} has no file in {batch}"
        yield validate(ctx, model, [replace(file, model=model) for file in files], [])


def test_the_samples_in_the_tree_are_those_the_script_makes() -> None:
    made = {f"opendata/{name}": content for name, content in deliveries()}
    made |= {f"network/{name}": content for name, content in packages()}
    samples = CONFIG / "samples"
    found = {str(path.relative_to(samples)): path.read_bytes() for path in samples.rglob("*") if path.is_file()}
    assert found == made


@pytest.mark.parametrize("batch", FOLDERS)
def test_every_delivery_passes_its_gates_and_has_something_to_reject(tmp_path: Path, batch: str) -> None:
    works = list(validated(tmp_path, batch))
    assert [rule for work in works for rule in work.rules if rule.passed is False] == []
    assert sum(work.counts.rejected or 0 for work in works) > 0
