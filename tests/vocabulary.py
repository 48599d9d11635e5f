"""Find words in the product that the glossary of CONTRIBUTING.md replaces by others.

    python tests/vocabulary.py                # every product file
    python tests/vocabulary.py utils/plots    # these files and folders

Read are the identifiers, comments, docstrings and other strings of the Python files, README.md and docs/en. A compound
identifier is split into its words (``train_batch``, ``TrainBatch``). A word stands for its plural as well.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Words = tuple[str, ...]

OLD_NAMES = "# names of older files"  # a comment in lines that read such files, where their words are allowed
TEST_WORDS = ("picture", "photograph", "film")  # refused in the names of tests too; their strings are input data
OPTIONS_PAGE = "docs/en/options.md"  # made of the help of the options, which is read in the code


@dataclass(frozen=True)
class Rule:
    """One entry of a "not" column.

    Attributes:
        words: the refused word or phrase, in lower case.
        instead: what to write.
        place: ``anywhere``; ``identifier``: only in names; ``definition``: only as the whole name of a function or
            class of a module.
        except_in: phrases in which it is allowed.
    """

    words: Words
    instead: str
    place: str
    except_in: tuple[Words, ...] = ()


@dataclass(frozen=True)
class Passage:
    """Consecutive words of one comment, string or identifier, with the line of each."""

    place: str
    words: list[tuple[str, int]]


def split_words(text: str, line: int = 1) -> list[tuple[str, int]]:
    """Words of ``text`` in lower case with their lines; punctuation that ends a phrase is a word too."""
    found = []
    for number, row in enumerate(text.split("\n"), start=line):
        row = re.sub(r"\\[nrt]", " ", row)
        found += [(w.lower(), number) for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[.,;:!?()]", row)]
    return found


def only_words(text: str) -> Words:
    return tuple(word for word, _ in split_words(text))


def read_rules(text: str) -> list[Rule]:
    """Rules of the tables of CONTRIBUTING.md whose head has a column ``not``; the first column is what to write.

    In that column, entries are separated by commas. A word in backticks is refused in identifiers alone, with ``()``
    only as the name of a function or class; a word in italics is advice, which is not checked. Quoted phrases in
    brackets behind an entry are those in which it is allowed.
    """
    rules: list[Rule] = []
    column = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if "not" in cells:
            column = cells.index("not")
        elif not cells:
            column = None
        elif column is not None and not cells[0].startswith("---"):
            rules += list(_rules_of_a_cell(cells[column], cells[0]))
    return rules


def _rules_of_a_cell(cell: str, instead: str) -> Iterator[Rule]:
    for entry, brackets in re.findall(r"((?:`[^`]+`|\*[^*]+\*|[^,(])+)(?: \(([^)]*)\))?(?:, |$)", cell):
        name = entry.strip().strip("`")
        if name.startswith("*"):
            continue
        place = "anywhere" if "`" not in entry else "definition" if name.endswith("()") else "identifier"
        allowed = tuple(only_words(phrase) for phrase in re.findall(r'"([^"]+)"', brackets))
        yield Rule(only_words(name.removesuffix("()")), instead, place, allowed)


def passages_of_python(source: str) -> Iterator[Passage]:
    """Identifiers, and runs of comments or strings that stand directly behind each other."""
    run: list[tuple[str, int]] = []
    kind = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        text = {"COMMENT": "comment", "STRING": "string", "FSTRING_MIDDLE": "string"}.get(name)
        if text is None and name in ("NL", "NEWLINE", "INDENT", "DEDENT", "FSTRING_START", "FSTRING_END"):
            continue
        if text != kind and run:
            yield Passage("text", run)
            run = []
        kind = text
        if text:
            run += split_words(token.string, token.start[0])
        elif name == "NAME":
            yield Passage("identifier", split_words(token.string, token.start[0]))
    if run:
        yield Passage("text", run)
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield Passage("definition", split_words(node.name, node.lineno))


def _matches(words: list[str], start: int, phrase: Words) -> bool:
    """Whether ``phrase``, or its plural, begins at ``start``."""
    part = tuple(words[start : start + len(phrase)])
    return part == phrase or part == (*phrase[:-1], f"{phrase[-1]}s")


def _is_allowed(words: list[str], at: int, rule: Rule) -> bool:
    for phrase in rule.except_in:
        first = max(0, at + len(rule.words) - len(phrase))
        if any(_matches(words, start, phrase) for start in range(first, at + 1)):
            return True
    return False


def refused(passages: Iterable[Passage], rules: Iterable[Rule]) -> list[tuple[int, str, str]]:
    """(line, words as written, what to write instead), by line."""
    by_word: dict[str, list[Rule]] = {}
    for rule in rules:
        for first in {rule.words[0], f"{rule.words[0]}s"} if len(rule.words) == 1 else {rule.words[0]}:
            by_word.setdefault(first, []).append(rule)
    hits = set()
    for passage in passages:
        words = [word for word, _ in passage.words]
        for at, (word, line) in enumerate(passage.words):
            for rule in by_word.get(word, ()):
                if rule.place == "definition":
                    hit = passage.place == "definition" and len(words) == len(rule.words)
                else:
                    hit = passage.place != "definition" and rule.place in ("anywhere", passage.place)
                if hit and _matches(words, at, rule.words) and not _is_allowed(words, at, rule):
                    hits.add((line, " ".join(words[at : at + len(rule.words)]), rule.instead))
    return sorted(hits)


def refused_in_file(path: Path, rules: Iterable[Rule]) -> list[str]:
    """``file:line word -> use instead`` for every refused word of a file."""
    text = path.read_text(encoding="utf-8")
    passages = passages_of_python(text) if path.suffix == ".py" else [Passage("text", split_words(text))]
    old = {line for line, row in enumerate(text.split("\n"), start=1) if OLD_NAMES in row}
    name = path.relative_to(ROOT).as_posix()
    return [f"{name}:{line} {words} -> {new}" for line, words, new in refused(passages, rules) if line not in old]


def product_files() -> list[Path]:
    """README.md, the English documentation and the Python files that are not tests."""
    folders = [path for name in ("models", "utils", "tools", "examples") for path in (ROOT / name).rglob("*.py")]
    documentation = [ROOT / "README.md", *sorted({*(ROOT / "docs/en").glob("*.md")} - {ROOT / OPTIONS_PAGE})]
    return [*documentation, *sorted([*ROOT.glob("*.py"), *folders])]


def check(places: Sequence[Path] = (ROOT,)) -> list[str]:
    """Refused words in the product files at or below ``places``."""
    rules = read_rules((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    chosen = [path for path in product_files() if any(place == path or place in path.parents for place in places)]
    return [line for path in chosen for line in refused_in_file(path, rules)]


def check_tests() -> list[str]:
    """Names in the tests that contain one of ``TEST_WORDS``."""
    rules = read_rules((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    rules = [rule for rule in rules if rule.words[0] in TEST_WORDS]
    lines = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        passages = passages_of_python(path.read_text(encoding="utf-8"))
        hits = refused((passage for passage in passages if passage.place == "identifier"), rules)
        lines += [f"{path.relative_to(ROOT).as_posix()}:{line} {words} -> {new}" for line, words, new in hits]
    return lines


def main(names: list[str]) -> int:
    wrong = check([(ROOT / name).resolve() for name in names or ["."]]) + ([] if names else check_tests())
    print("\n".join(wrong) if wrong else "vocabulary: clean")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
