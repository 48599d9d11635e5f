"""The findings of a data set check as text, as JSON and as the few lines for the console."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from utils.datasets.checks.findings import EXPLAINED, GRAVE
from utils.datasets.labels.records import Finding, LabelSet, ScanReport

_EXAMPLES = 3  # of a grave kind on the console


@dataclass(frozen=True)
class SplitSummary:
    """What a split holds: counts of images, and of boxes by class name."""

    images: int
    with_labels: int
    without_label_file: int
    with_empty_label_file: int
    unusable: int
    boxes: int
    boxes_of_class: dict[str, int]

    @classmethod
    def of(cls, labels: LabelSet, boxes_of_class: dict[str, int]) -> SplitSummary:
        report: ScanReport = labels.report
        return cls(
            images=len(labels.records) + report.corrupt,
            with_labels=report.labelled,
            without_label_file=report.missing,
            with_empty_label_file=report.empty,
            unusable=report.corrupt,
            boxes=sum(boxes_of_class.values()),
            boxes_of_class=boxes_of_class,
        )


@dataclass
class CheckReport:
    """All that a check found: a summary per split and the findings as (split, finding)."""

    data: Path
    imgsz: int
    decoded: bool
    splits: dict[str, SplitSummary] = field(default_factory=dict)
    findings: list[tuple[str, Finding]] = field(default_factory=list)

    @property
    def kinds(self) -> Counter[str]:
        """Number of findings of each kind."""
        return Counter(finding.kind for _, finding in self.findings)

    @property
    def grave(self) -> bool:
        """Whether rows or images are lost, or splits share images."""
        return any(kind in GRAVE for kind in self.kinds)

    def as_json(self) -> str:
        """Everything, for programs."""
        content: dict[str, Any] = {
            "data": str(self.data),
            "imgsz": self.imgsz,
            "decoded": self.decoded,
            "clean": not self.grave,
            "splits": {name: asdict(summary) for name, summary in self.splits.items()},
            "counts": dict(self.kinds),
            "findings": [
                {"split": split, "grave": finding.kind in GRAVE, **asdict(finding)} for split, finding in self.findings
            ],
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def as_text(self) -> str:
        """Everything, for people: the summary, the boxes of each class, then all findings by kind."""
        lines = [*self.summary_lines(examples=0), ""]
        for name, summary in self.splits.items():
            lines += [f"boxes of each class in {name}:"]
            lines += [f"  {count:>9}  {label}" for label, count in summary.boxes_of_class.items()] + [""]
        for kind in self._ordered_kinds():
            lines.append(f"{kind} ({self.kinds[kind]}; {EXPLAINED.get(kind, 'for your information')}):")
            lines += [f"  {split}: {finding}" for split, finding in self.findings if finding.kind == kind] + [""]
        return "\n".join(lines) + "\n"

    def summary_lines(self, examples: int = _EXAMPLES) -> list[str]:
        """A line per split and per kind of finding, the grave ones marked and with a few ``examples``."""
        lines = [f"{self.data}"]
        for name, s in self.splits.items():
            lines.append(
                f"{name:<6}{s.images:>8} images: {s.with_labels} with labels, {s.without_label_file} without a "
                f"label file, {s.with_empty_label_file} with an empty one, {s.unusable} unusable; {s.boxes} boxes"
            )
        counts = self.kinds
        for kind in self._ordered_kinds():
            mark = "!!" if kind in GRAVE else "  "
            lines.append(f"{mark}{counts[kind]:>8} {kind}: {EXPLAINED.get(kind, 'for your information')}")
            if kind in GRAVE:
                shown = [(split, finding) for split, finding in self.findings if finding.kind == kind][:examples]
                lines += [f"{'':12}{split}: {finding}" for split, finding in shown]
        if not self.findings:
            lines.append("nothing found")
        return lines

    def _ordered_kinds(self) -> Sequence[str]:
        rank = {kind: i for i, kind in enumerate(EXPLAINED)}
        return sorted(self.kinds, key=lambda kind: (rank.get(kind, len(rank)), kind))
