from __future__ import annotations

from scripts.benchmarks.quality.figures import Figures, render


def test_perplexity_is_compared_with_the_first_variants() -> None:
    found = {
        "float32": Figures(20.0, 10.0, 1000.0, 2 * 2**30),
        "int4": Figures(21.0, 4.0, 300.0, 2**30),
    }
    assert render(found).splitlines()[2:] == [
        "| float32 | 20.000 (+0.00 %) | 10 | 1,000 | 2,048 |",
        "| int4 | 21.000 (+5.00 %) | 4 | 300 | 1,024 |",
    ]
