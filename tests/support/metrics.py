"""A page of metrics, parsed."""

import re


class Page:
    """A page of metrics, which must be in Prometheus's text format."""

    def __init__(self, text: str) -> None:
        self.types: dict[str, str] = {}
        self._samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in self.types
                self.types[name] = kind
            elif line and not line.startswith("# HELP "):
                sample = _SAMPLE.fullmatch(line)
                assert sample, line
                key = sample[1], frozenset(_LABEL.findall(sample[2] or ""))
                assert key not in self._samples
                self._samples[key] = float(sample[3])
        self.names = {name for name, _ in self._samples}
        for name in self.names:
            assert name in self.types or re.sub("_(bucket|sum|count)$", "", name) in self.types

    def get(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        pairs = set(labels.items())
        return sum(value for (metric, held), value in self._samples.items() if metric == name and pairs <= held)


_SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{((?:\w+="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)')

_LABEL = re.compile(r'(\w+)="((?:[^"\\\n]|\\[\\n"])*)"')
