"""Reading YAML with places, and laying layers over each other."""

from pathlib import Path

import pytest

from ingestkit.errors import ConfigError
from ingestkit.layers import Node, Origin, built, find, labelled, lay, leaves, plain, read_file, read_text, without


def yaml(text: str) -> Node:
    return read_text(text, "settings.yaml", "file")


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        yaml(text)
    assert caught.value.hint
    return caught.value.message


def test_every_value_knows_its_line() -> None:
    tree = yaml("state:\n  url: x\n\n  lease: {ttl: 9s,\n    beat: 3s}\nlist:\n  - a\n  - b\n")
    places = {".".join(map(str, keys)): leaf.origin.place for keys, leaf in leaves(tree)}
    assert places == {
        "state.url": "settings.yaml:2",
        "state.lease.ttl": "settings.yaml:4",
        "state.lease.beat": "settings.yaml:5",
        "list.0": "settings.yaml:7",
        "list.1": "settings.yaml:8",
    }


def test_plain_words_are_not_guessed_at() -> None:
    tree = yaml("a: no\nb: 2024-01-01\nc: 0755\nd: 12:30\ne: 1_000\nf: on\ng: 1.50\nh: true\ni: ~\nj:\nk: '5'\nl: -3\n")
    expected = {"a": "no", "b": "2024-01-01", "c": "0755", "d": "12:30", "e": "1_000", "f": "on"}
    assert plain(tree) == expected | {"g": 1.5, "h": True, "i": None, "j": None, "k": "5", "l": -3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "settings.yaml:3: the key 'a' is there already, at settings.yaml:1"),
        ("x:\n  a: 1\n  a: 3\n", "settings.yaml:3: the key 'a' is there already, at settings.yaml:2"),
        ("a: 1\nb: [1, 2\n", "settings.yaml:3: not valid YAML"),
        ("a: 1\n\tb: 2\n", "settings.yaml:2: not valid YAML"),
        ("a: &x [*x]\n", "settings.yaml:1: an anchor holds itself"),
        ("a: 1\nb: !!python/name:os.system x\n", "settings.yaml:2: the tag"),
        ("- a\n", "settings.yaml:1: a mapping"),
        ("? [a]\n: b\n", "settings.yaml:1: a key is a plain word"),
        ("a: 1\n---\nb: 2\n", "settings.yaml:2: not valid YAML"),
        ("a: \x00\n", "settings.yaml: not valid YAML"),
        ("a: !!int x\n", "settings.yaml:1: 'x' is not what its tag says"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text: str, expected: str) -> None:
    assert problem(text).startswith(expected)


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert plain(yaml("")) == {}
    assert plain(yaml("# nothing yet\n")) == {}


def test_json_is_read_with_tabs_and_places(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{\n\t"pipeline": "p",\n\t"text": "a\\tb \\u00e9"\n}\n')
    tree = read_file(path, "p.json", "file")
    assert plain(tree) == {"pipeline": "p", "text": "a\tb é"}
    assert find(tree, ("text",)) == Node("a\tb é", Origin("file", "p.json:3"))


def test_broken_json_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{\n "a": 1,\n}\n')
    with pytest.raises(ConfigError, match=r"^p\.json:[23]: not valid JSON"):
        read_file(path, "p.json", "file")


def test_files_that_cannot_be_read_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: cannot be read: No such file"):
        read_file(tmp_path / "x.yaml", "x.yaml", "file")
    (tmp_path / "latin.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: is not UTF-8 at byte 3"):
        read_file(tmp_path / "latin.yaml", "latin.yaml", "file")


def test_a_stronger_layer_wins_key_by_key_and_lists_whole() -> None:
    weaker = yaml("a: {x: 1, y: 2}\nlist: [1, 2, 3]\n")
    stronger = built({"a": {"y": 5}, "list": [9], "new": 1}, Origin("flag", "--a"))
    laid = lay(stronger, weaker)
    assert plain(laid) == {"a": {"x": 1, "y": 5}, "list": [9], "new": 1}
    assert find(laid, ("a", "x")) == Node(1, Origin("file", "settings.yaml:1"))
    assert find(laid, ("a", "y")) == Node(5, Origin("flag", "--a"))


def test_an_adapter_of_another_type_is_replaced_whole() -> None:
    weaker = yaml("connections: {lake: {type: local, path: x}}\n")
    other = built({"connections": {"lake": {"type": "s3", "bucket": "b"}}}, Origin("profile prod", "x"))
    same = built({"connections": {"lake": {"type": "local", "path": "y"}}}, Origin("profile prod", "x"))
    assert plain(lay(other, weaker)) == {"connections": {"lake": {"type": "s3", "bucket": "b"}}}
    assert plain(lay(same, weaker)) == {"connections": {"lake": {"type": "local", "path": "y"}}}


def test_a_column_of_another_type_keeps_its_rules() -> None:
    weaker = yaml("models: {hcp: {columns: {id: {type: string, required: true}}}}\n")
    stronger = built({"models": {"hcp": {"columns": {"id": {"type": "integer"}}}}}, Origin("environment", "X"))
    column = find(lay(stronger, weaker), ("models", "hcp", "columns", "id"))
    assert column is not None
    assert plain(column) == {"type": "integer", "required": True}


def test_a_relabelled_layer_keeps_values_and_places() -> None:
    tree = labelled(yaml("a: [1, {b: 2}]\n"), "profile local")
    assert plain(tree) == {"a": [1, {"b": 2}]}
    assert {leaf.origin for _, leaf in leaves(tree)} == {Origin("profile local", "settings.yaml:1")}


def test_keys_can_be_left_out() -> None:
    assert plain(without(yaml("a: 1\nb: 2\nc: 3\n"), "a", "c")) == {"b": 2}
