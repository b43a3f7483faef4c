from __future__ import annotations

from scripts.benchmarks.peers.table import Column, medians, ratios, render

SPEED = Column("tokens/s")
LATENCY = Column("ms", min)
MEMORY = Column("MiB", min, beside="naive")
EQUAL = Column("equal", None)
COLUMNS = [SPEED, LATENCY, MEMORY, EQUAL]
FOUND = {
    "naive": {"tokens/s": 50.0, "ms": 20.0, "MiB": 2000.0, "equal": 16.0},
    "other": {"tokens/s": 100.0, "ms": 10.0, "MiB": 1000.0, "equal": 15.0},
    "ours": {"tokens/s": 150.0, "ms": 5.0, "MiB": 3000.0, "equal": 16.0},
}


def test_medians_are_those_of_the_rounds() -> None:
    rounds = [{"tokens/s": speed, "ms": speed} for speed in (1.0, 5.0, 3.0)]
    assert medians({"one": rounds, "failed": []}) == {"one": {"tokens/s": 3.0, "ms": 3.0}}


def test_each_figure_is_a_part_of_the_best_peers() -> None:
    parts = ratios(COLUMNS, FOUND, ["naive", "other"])
    assert parts["ours"] == {"tokens/s": 1.5, "ms": 0.5, "MiB": 1.5}
    assert parts["naive"] == {"tokens/s": 0.5, "ms": 2.0, "MiB": 1.0}


def test_there_is_no_ratio_to_a_peer_that_is_missing() -> None:
    assert ratios(COLUMNS, {"ours": FOUND["ours"]}, ["naive", "other"]) == {"ours": {}}


def test_the_table_is_markdown() -> None:
    assert render(COLUMNS, FOUND | {"web": {"tokens/s": 1234.0}}, ["naive", "other"]).splitlines() == [
        "| server | tokens/s | ms | MiB | equal |",
        "|---|---|---|---|---|",
        "| naive | 50.0 (0.50) | 20.0 (2.00) | 2,000 (1.00) | 16.0 |",
        "| other | 100 (1.00) | 10.0 (1.00) | 1,000 (0.50) | 15.0 |",
        "| ours | 150 (1.50) | 5.0 (0.50) | 3,000 (1.50) | 16.0 |",
        "| web | 1,234 (12.34) |  |  |  |",
    ]
