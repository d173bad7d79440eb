"""The table of other people's graphs in models/foreign-graphs.md is rendered from its results."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_is_that_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import foreign_graphs

    page = (ROOT / "models/foreign-graphs.md").read_text()
    rows = json.loads((ROOT / "benchmarks/results/foreign_graphs.json").read_text())["rows"]
    assert foreign_graphs.rendered(page, sorted(rows, key=lambda row: row["graph"])) == page
    row = {"graph": "a.onnx", "nodes_before": 3, "adopt": "it is no graph"}
    assert foreign_graphs.table_of([row, row]).splitlines()[2:] == [
        "| `a` |  | 3 |  |  | (1) |  |  |  |  |  |  |  |",
        "| `a` |  | 3 |  |  | (1) |  |  |  |  |  |  |  |",
        "",
        "(1) it is no graph",
    ]
