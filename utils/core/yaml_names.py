"""Class names in yaml: read as the text that stands there, and written so that every yaml reader gets that text back.

Yaml turns plain words into other values: 007 is 7, 12:30 is 750, 1e3 may be 1000, no is false. Below ``names`` they are
names.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

_KEY = "names"
_TAG = "tag:yaml.org,2002:"
_TEXT = f"{_TAG}str"
_OTHER_VALUES = frozenset(f"{_TAG}{kind}" for kind in ("int", "float", "bool", "null", "timestamp", "merge", "value"))
_MOST_ENTRIES = 1_000_000
_NUMBERS, _LONGEST_NUMBER = frozenset({f"{_TAG}int", f"{_TAG}float"}), 300  # characters
_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # neither names nor paths can hold these
# What may stand without quotes in any version of yaml: it begins with a letter and is no word for a value.
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null|none|nan|inf)$)[^\W\d_]", re.IGNORECASE)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but for scalars below a key ``names`` (or in a file that is a list): these are text.

    Every mistake is a YAMLError that knows its line.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:  # such as 1:1:1:..., which takes minutes to read
            raise self._mistake(node, f"a number of {len(node.value)} characters; put it in quotes if it is text")
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            raise self._mistake(
                node, f"'{str(node.value)[:40]}' is no {kind}; put it in quotes if it is text"
            ) from error
        if isinstance(value, str) and _UNUSABLE.search(value):
            raise self._mistake(node, f"{value[:40]!a} holds a null byte or half a character; remove it")
        return value

    def check_size(self, node: yaml.Node, sizes: dict[int, int]) -> int:
        """The entries below a node with every alias written out: a few lines of them can stand for billions."""
        if not isinstance(node.value, list):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_ENTRIES + 1  # if it comes up below itself
            below = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(self.check_size(part, sizes) for part in below)
        if sizes[id(node)] > _MOST_ENTRIES:
            raise self._mistake(node, f"with its aliases it has more than {_MOST_ENTRIES} entries")
        return sizes[id(node)]

    @staticmethod
    def _mistake(node: yaml.Node, problem: str) -> yaml.YAMLError:
        return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def construct_document(self, node: yaml.Node) -> Any:
        return super().construct_document(self._with_text(node) if isinstance(node, yaml.SequenceNode) else node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated(node)
            self.flatten_mapping(node)
            node.value = [(key, self._with_text(value) if key.value == _KEY else value) for key, value in node.value]
        return super().construct_mapping(node, deep)

    def _with_text(self, node: yaml.Node) -> yaml.Node:
        """A copy whose scalars are text; a copy, because an alias may use the same node elsewhere."""
        if isinstance(node, yaml.SequenceNode):
            items = [_text(item) for item in node.value]
            return yaml.SequenceNode(node.tag, items, node.start_mark, node.end_mark)
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated(node)
            self.flatten_mapping(node)
            pairs = [(key, _text(value)) for key, value in node.value]
            return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
        return node


def _refuse_repeated(node: yaml.MappingNode) -> None:
    """Raise for a key that stands twice: PyYAML would take the last one and lose the others without a word."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                problem = f"the key '{key.value}' stands here a second time"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add((key.tag, key.value))


def _text(node: yaml.Node) -> yaml.Node:
    if isinstance(node, yaml.ScalarNode) and node.value and node.tag in _OTHER_VALUES:
        return yaml.ScalarNode(_TEXT, node.value, node.start_mark, node.end_mark, node.style)
    return node


def load_yaml(text: str) -> Any:
    """Plain types from the text of a yaml file. Below a key ``names``, or in a file that is a list, words are text.

    An empty entry stays None. Keys, and values anywhere else, are what yaml makes of them.

    Raises:
        yaml.YAMLError: it is not yaml, or an entry has no usable value.
        RecursionError: it is nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        loader.check_size(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(_TEXT, text, style=None if _PLAIN.match(text) else "'")


class _Dumper(yaml.SafeDumper):
    """PyYAML knows the values of yaml 1.1 only: it would leave 1e3 and 0o17 bare, which are numbers in yaml 1.2."""

    yaml_representers: ClassVar[dict[type, Any]] = {**yaml.SafeDumper.yaml_representers, str: _represent_text}

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(content: Any) -> str:
    """Plain types as the text of a yaml file, keys in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
