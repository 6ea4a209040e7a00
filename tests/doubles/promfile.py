"""A reader of Prometheus' text format that takes what node_exporter and `promtool check metrics` take, and no more."""

import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})\{{((?:[a-zA-Z_][a-zA-Z0-9_]*=\"(?:[^\"\\\n]|\\[\\\"n])*\",?)*)\}} (\S+)")
LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)=\"((?:[^\"\\\n]|\\[\\\"n])*)\"")
BASE_UNITS = ("_milliseconds", "_minutes", "_hours", "_kilobytes", "_kb", "_mb", "_percent")

Labels = tuple[tuple[str, str], ...]


def read(text: str) -> dict[str, dict[Labels, float]]:
    """Every sample by name and labels; AssertionError where the file is not what it should be."""
    assert text.endswith("\n")
    found: dict[str, dict[Labels, float]] = {}
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    for line in text.removesuffix("\n").split("\n"):
        if match := re.fullmatch(rf"# HELP ({NAME}) (.+)", line):
            assert match[1] not in helped, f"a second HELP for {match[1]}"
            assert not re.search(r"\\(?![\\n])", match[2])
            helped.add(match[1])
        elif match := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge)", line):
            name, kind = match.groups()
            assert name in helped, f"no HELP before TYPE of {name}"
            assert name not in kinds, f"the family {name} is not in one piece"
            _linted(name, kind)
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            # A time behind the value is refused by the collector.
            assert match, f"no line of the format: {line!r}"
            name, labels, value = match.groups()
            assert list(kinds)[-1] == name, f"{name} does not stand below its TYPE"
            known = LABEL.findall(labels)
            assert ",".join(f'{key}="{told}"' for key, told in known) == labels
            assert len({key for key, _ in known}) == len(known), f"a label stands twice: {line}"
            assert not any(key.startswith("__") for key, _ in known)
            key = tuple(sorted(known))
            assert key not in found.setdefault(name, {}), f"a sample stands twice: {line}"
            assert math.isfinite(float(value)), line
            assert float(value) >= 0, line
            found[name][key] = float(value)
    assert set(found) == set(kinds) == helped
    return found


def _linted(name: str, kind: str) -> None:
    assert name.endswith("_total") == (kind == "counter"), f"{kind} {name}"
    assert not re.search("[A-Z:]", name), name
    assert not any(unit in name for unit in BASE_UNITS), name
    assert not re.search(r"_(counter|gauge|histogram|summary)(_|$)", name), name
    assert not name.endswith(("_count", "_sum", "_bucket")), name


def value(samples: dict[Labels, float], **labels: str) -> float:
    """The one sample whose labels are these, among others."""
    found = [figure for known, figure in samples.items() if labels.items() <= dict(known).items()]
    assert len(found) == 1, (labels, samples)
    return found[0]
