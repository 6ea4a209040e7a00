"""What a name says: the batch a path belongs to and the models that claim a file; the same for all sources of files."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from ingestkit.errors import ConfigError, SourceError
from ingestkit.files import shown
from ingestkit.settings import MANY, Batches, Model
from ingestkit.sources.archives import is_archive
from ingestkit.windows import first_showing, zone_of

TOLERANT = (
    r"(?:[a-z]{{2,3}}_)?(?:{names})(?:[-_. ](?:\d[\dtz]*|{words}|part\d*))*"
    r"\.(?:(?:csv|tsv|txt|dat|jsonl|ndjson)(?:\.gz)?|parquet)"
)
"""How files of a model are called when it does not say: in any case, of one or of many, with `US_` before, and a date,
number or `full` behind, or `delta` where the model takes changes."""
PLURALS = (
    (r"(.+[^aeiou])(?:y|ies)", "(?:y|ies?)"),
    (r"(.+(?:ss|x|z|ch|sh))(?:es)?", "(?:es)?"),
    (r"(.+s)es", "(?:es?)?"),
    (r"(.+)s", "(?:s(?:es)?)?"),
)
"""What words end with, and with what they may end where another number of them is meant."""
EVERYTHING = re.compile(r".*", re.DOTALL)
SHORT, LEVELS = 3, 2
Claims: TypeAlias = Mapping[str, tuple[re.Pattern[str], re.Pattern[str]]]
"""By model: how its files are called, and how besides where no other model's are called so."""


def batch_of(settings: Batches, pattern: re.Pattern[str], path: str) -> str | None:
    """The batch a folder or file belongs to, or None when it belongs to none."""
    match = pattern.fullmatch(path)
    if match is None:
        return None
    try:
        return settings.key(match["batch"] or "")
    except ValueError:
        raise SourceError(
            f"{shown(path)} matches the batch pattern, but {shown(match['batch'] or '')!r} is no key"
            f" of kind {settings.kind}",
            hint="rename it at the source, or make source.batches match batches only",
        ) from None


def refuse_alike(settings: Batches, pattern: re.Pattern[str], batches: Mapping[str, Sequence[str]]) -> None:
    """Where keys count up a number is given once: two packages, or two ways of writing it, would be one batch."""
    if settings.holes is None:
        return
    for key, paths in batches.items():
        written = {match["batch"]: path for path in paths if (match := pattern.fullmatch(path)) is not None}
        if len(written) > 1:
            one, other, *_ = sorted(written.values())
            raise SourceError(
                f"{shown(one)} and {shown(other)} are both of number {key}, written in two ways",
                hint="rename one at the source, or make source.batches match one way of writing",
            )
        packages = {path.rpartition("/")[0]: path for path in paths if is_archive(path)}
        if len(packages) > 1:
            one, other, *_ = sorted(packages.values())
            raise SourceError(
                f"{shown(one)} and {shown(other)} are both of number {key}",
                hint="give what counts apart a pipeline of its own, whose source.batches matches one of the folders",
            )


def time_of(settings: Batches, pattern: re.Pattern[str], path: str) -> datetime | None:
    """The instant that a folder or file is of, or None when it is of no window."""
    match = pattern.fullmatch(path)
    if match is None:
        return None
    assert settings.at is not None
    try:
        said = datetime.strptime(match["at"] or "", settings.at.format)  # noqa: DTZ007 the zone is said beside it
    except ValueError:
        raise SourceError(
            f"{shown(path)} matches the pattern of windows, but {shown(match['at'] or '')!r} is not written"
            f" {settings.at.format}",
            hint="rename it at the source, or make source.batches match what has a time only",
        ) from None
    if said.tzinfo is not None:
        return said.astimezone(UTC)
    return first_showing(said, zone_of(settings.at.timezone or settings.timezone))


def checked_after(settings: Batches, after: str) -> tuple[int, str]:
    """The place of a key that came from outside: a checkpoint or a flag."""
    try:
        return settings.order(settings.key(after))
    except ValueError:
        raise ConfigError(
            f"{after!r} is no batch key of kind {settings.kind}",
            hint="set source.batches.kind back to what it was, or name a key of that kind",
        ) from None


def claims_of(models: Mapping[str, Model]) -> Claims:
    """How each model recognises its files."""
    return {name: _claims_of(name, model) for name, model in models.items()}


def claimants(claims: Claims, path: str, name: str) -> tuple[str, ...]:
    """The model that claims a file by the last part of its name, or nothing; two are a mistake in the pipeline.

    A name as it is said goes before one that only has another number: `sales.csv` is of model `sales`, not of `sale`.
    """
    name = name.rsplit("/", 1)[-1]
    for level in range(LEVELS):
        claiming = tuple(model for model, patterns in claims.items() if patterns[level].fullmatch(name))
        if len(claiming) > 1:
            raise ConfigError(
                f"models {' and '.join(claiming)} both claim {shown(path)}",
                hint="make `files` of one of them narrower",
            )
        if claiming:
            return claiming
    return ()


def _claims_of(name: str, model: Model) -> tuple[re.Pattern[str], re.Pattern[str]]:
    if name == MANY:
        return EVERYTHING, EVERYTHING
    if model.files is not None:
        said = re.compile(model.files)
        return said, said
    names = [re.split(r"[-_ ]+", one.strip("-_ ")) for one in (name, *model.names)]
    several = (
        "|".join("[-_ ]*".join([*map(re.escape, before), ending(last)]) for *before, last in names)
        for ending in (re.escape, _number_of)
    )
    words = "full|delta" if model.takes_changes else "full"
    exact, loose = (re.compile(TOLERANT.format(names=one, words=words), re.IGNORECASE) for one in several)
    return exact, loose


def _number_of(word: str) -> str:
    """A word in the singular or the plural, whichever of them it is; what is very short has no other number."""
    if len(word) < SHORT:
        return re.escape(word)
    for ending, others in PLURALS:
        if (match := re.fullmatch(ending, word, re.IGNORECASE)) is not None:
            return re.escape(match[1]) + others
    return f"{re.escape(word)}s?"
