"""The benchmark tool: its table, its statistics and what it writes. Nothing here depends on how long a thing takes."""

import copy
import json
import random

import pytest
from bench_documents import HALVED, NOISY, STEADY, row, run_of

from bench import cases, compare, document, models, peers, plots, report, report_docs, runner, scaling, timing
from bench.cases import BCE, CE, Case


class TestCases:
    def test_labels_are_unique(self):
        labels = [case.label for case in cases.CASES]
        assert len(set(labels)) == len(labels)

    def test_every_row_is_well_formed(self):
        for case in cases.CASES:
            assert len(cases.passes_of(case.op)) == 3, case.label
            assert case.variant in cases.VARIANTS, case.label
            assert case.layout in cases.LAYOUTS, case.label
            assert case.part in cases.PART, case.label
            assert case.model or (all(extent > 0 for extent in case.shape) and case.shape), case.label
            assert bool(case.shape) != bool(case.model), case.label
            assert not case.quick_shape or len(case.quick_shape) == len(case.shape), case.label
            assert set(case.floors) <= {peer.name for peer in peers.of(case)}, case.label
            assert case.moved_bytes >= 0, case.label

    @pytest.mark.parametrize(
        ("name", "tensors", "elements"),
        [("resnet50", 161, 25_557_032), ("gpt2-small", 148, 124_439_808), ("llama-block", 9, 60_821_504)],
    )
    def test_models_have_their_parameters(self, name, tensors, elements):
        assert len(models.MODELS[name]()) == tensors
        assert Case("SGD", model=name).elements == elements

    @pytest.mark.parametrize(
        ("case", "expected"),
        [
            (Case(CE, (4096, 1000)), 2 * 4 * 4096 * 1000 + 8 * 4096),
            (Case(CE, (8, 21, 256, 256), dtype="bfloat16"), 2 * 2 * 8 * 21 * 256**2 + 8 * 8 * 256**2),
            (Case(CE, (64, 10), part="forward"), 4 * 640 + 8 * 64),
            (Case(CE, (64, 10), variant="reused"), 3 * 4 * 640 + 8 * 64),
            (Case(BCE, (1000,)), 3 * 4000),
            (Case("softmax", (10, 10), part="backward"), 3 * 400),
            (Case("nll_loss", (10, 10), part="forward"), 80),
            (Case("Adam", model="resnet50"), 7 * 4 * 25_557_032),
            (Case("SGD", (25, 1000), dtype="bfloat16", variant="clip"), 6 * 2 * 25_000),
            (Case("AdamW", (25, 1000), variant="ema"), 9 * 4 * 25_000),
        ],
        ids=lambda value: value.label if isinstance(value, Case) else "",
    )
    def test_least_bytes_by_hand(self, case, expected):
        assert case.moved_bytes == expected

    def test_selection(self):
        assert [case.label for case in cases.select(only="Adam 161x256 CLIP")] == ["Adam 161x256 clip"]
        assert not any(case.compiled for case in cases.select(compiled=False))
        quick = cases.select(quick=True)
        assert quick
        assert not any(case.floors for case in quick)
        assert max(case.tensor_bytes for case in quick) < 20e6


class TestStatistics:
    def test_the_interval_holds_a_known_ratio(self):
        rng = random.Random(0)
        ours = [rng.gauss(1.0, 0.05) for _ in range(41)]
        found = timing.ratio([2 * rng.gauss(1.0, 0.05) for _ in range(41)], ours)
        assert found.low < 2 < found.high
        assert found.low < found.value < found.high
        assert found.high - found.low < 0.3

    def test_a_drift_of_both_leaves_the_ratio(self):
        ours = [1.0 + 0.1 * number for number in range(21)]
        found = timing.ratio([3 * time for time in ours], ours)
        assert found.low == pytest.approx(3)
        assert found.high == pytest.approx(3)

    def test_spread_of_the_median(self):
        low, high = timing.spread([1.0, 2.0, 3.0, 4.0, 5.0])
        assert 1 <= low < 3 < high <= 5

    def test_equal_contestants_are_not_told_apart(self):
        rng = random.Random(1)
        found = timing.ratio([rng.gauss(1, 0.1) for _ in range(31)], [rng.gauss(1, 0.1) for _ in range(31)])
        assert report.within_noise([found.value, found.low, found.high], 1.0)

    @pytest.mark.parametrize(
        ("ratio", "word", "cell"),
        [
            ([4.0, 3.9, 4.1], "met", "met"),
            ([3.0, 2.9, 3.1], "missed", "missed: eager 3.5x"),
            ([3.6, 3.4, 3.8], "open", "~: eager 3.5x"),
            ([3.4, 3.3, 3.6], "open", "~: eager 3.5x"),
        ],
    )
    def test_a_floor_within_the_noise_is_left_open(self, ratio, word, cell):
        found = row("a", {"copy": [1, 1, 1], "eager": ratio}, floors={"eager": 3.5, "compile": 2})
        assert report.verdicts(found) == {"eager": word}
        assert report.lines([found])[1][-1] == cell

    def test_a_ratio_within_the_noise_is_marked(self):
        found = row("a", {"copy": [1, 1, 1], "eager": [1.1, 0.9, 1.2], "jax": [0.8, 0.7, 0.9]})
        titles, line = report.lines([found])
        assert line[titles.index("eager")] == "~1.10x"
        assert report.slower([found]) == ["a: slower than JAX 0.80x; not told apart from eager 1.10x"]

    def test_what_a_small_call_is_made_of(self):
        ratios = {"copy": [1, 1, 1], "operator": [0.75, 0.7, 0.8], "kernel": [0.25, 0.2, 0.3]}
        assert report.overheads([row("a", ratios, ms=0.004, peers_ms={"operator": 0.003, "kernel": 0.001})]) == [
            "a: 4.00 us = kernel 1.00, operator 2.00, function 1.00"
        ]

    def test_on_a_busy_machine_nothing_is_judged(self):
        found = row(
            "a", {"copy": [1, 1, 1], "eager": [9.0, 8.9, 9.1]}, floors={"eager": 3.5}, busy=True, others_busy=1.0
        )
        assert report.verdicts(found) == {"eager": "open"}
        assert "~9.00x" in report.lines([found])[1]
        assert any("kept up to 1.0 processors busy" in text for text in report.notes([found]))

    def test_busy_is_what_takes_a_processor_from_us(self, monkeypatch):
        monkeypatch.setattr(runner, "processors", lambda: 4)
        assert not runner.Row(Case(CE, (4, 10)), threads=2, others=1.5).busy
        assert runner.Row(Case(CE, (4, 10)), threads=4, others=0.5).busy

    def test_the_byte_model_is_recovered(self):
        loads = [1e3, 1e5, 1e7, 1e9]
        overhead, speed, deviation = scaling.fit(loads, [2e-6 + load / 50e9 for load in loads])
        assert overhead == pytest.approx(2e-6)
        assert speed == pytest.approx(50)
        assert deviation == pytest.approx(0, abs=1e-9)

    def test_the_byte_model_is_never_negative(self):
        overhead, speed, deviation = scaling.fit([1.0, 2.0, 4.0], [1.0, 3.0, 8.0])
        assert overhead == 0
        assert speed > 0
        assert 0 < deviation < 1
        assert scaling.fit([1.0, 2.0, 4.0], [3.0, 2.0, 1.0])[1] == float("inf")


class TestCompare:
    @pytest.mark.parametrize(
        ("before", "after", "verdict"),
        [(STEADY, STEADY, "~"), (STEADY, HALVED, "slower"), (HALVED, STEADY, "faster"), (STEADY, NOISY, "~")],
    )
    def test_verdicts(self, before, after, verdict):
        (change,) = compare.changes(run_of(row("a", before)), run_of(row("a", after)))
        assert change.verdict(compare.MARGIN) == verdict

    def test_a_machine_at_half_its_speed_is_no_regression(self):
        (change,) = compare.changes(run_of(row("a", STEADY)), run_of(row("a", STEADY, ms=4.0)))
        assert change.verdict(compare.MARGIN) == "~"

    def test_a_slower_eager_alone_is_no_regression(self):
        after = {"copy": STEADY["copy"], "eager": HALVED["eager"]}
        (change,) = compare.changes(run_of(row("a", STEADY)), run_of(row("a", after)))
        assert change.verdict(compare.MARGIN) == "~"

    def test_busy_rows_are_not_judged(self):
        new = run_of(row("a", HALVED, busy=True))
        (change,) = compare.changes(run_of(row("a", STEADY)), new)
        assert change.verdict(compare.MARGIN) == "~"
        assert any("1 of the rows" in text for text in compare.cautions(run_of(row("a", STEADY)), new))

    def test_rows_are_matched_by_label_and_threads(self):
        old = run_of(row("a", STEADY), row("b", STEADY, threads=1), row("c", STEADY, error="it failed"))
        new = run_of(row("a", STEADY), row("b", STEADY), row("c", STEADY))
        assert [change.label for change in compare.changes(old, new)] == ["a"]
        assert any("b (1 thread)" in text for text in compare.cautions(old, new))

    def test_another_machine_is_pointed_out(self):
        other = run_of(row("a", STEADY))
        other["machine"]["cpu"] = "another processor"
        assert any("differ in cpu" in text for text in compare.cautions(run_of(row("a", STEADY)), other))


class TestDocs:
    def write(self, folder, found):
        document.write(folder / "performance.json", found)
        report_docs.write(folder / "performance.json", folder / "performance.md", folder / "README.md")
        return (folder / "README.md").read_text(), (folder / "performance.md").read_text()

    def test_writing_twice_changes_nothing(self, tmp_path):
        (tmp_path / "README.md").write_text(f"before\n{report_docs.BEGIN}\nold 123.4\n{report_docs.END}\nafter\n")
        slow = row("b", {"copy": [0.5, 0.4, 0.6], "eager": [0.7, 0.6, 0.8]}, headline=False)
        found = run_of(row("a", STEADY), slow)
        readme, page = self.write(tmp_path, found)
        assert self.write(tmp_path, copy.deepcopy(found)) == (readme, page)
        assert readme.startswith(f"before\n{report_docs.BEGIN}\n")
        assert readme.endswith(f"{report_docs.END}\nafter\n")
        assert "| a | 2 |" in readme
        assert "old 123.4" not in readme
        assert "| b |" not in readme  # no headline row
        assert "* b: slower than eager 0.70x" in page
        assert (tmp_path / "performance.png").stat().st_size > 1000

    def test_every_row_is_on_the_page_once(self, tmp_path):
        (tmp_path / "README.md").write_text(f"{report_docs.BEGIN}\n{report_docs.END}\n")
        rows = [
            row(case.label, STEADY, op=case.op, optimizer=case.is_optimizer, headline=case.headline, part=case.part,
                variant=case.variant, cold=case.cold)
            for case in cases.CASES
        ]  # fmt: skip
        _, page = self.write(tmp_path, run_of(*rows))
        for case in cases.CASES:
            assert page.count(f"| {case.label} |") == 1
        assert "### Others" not in page

    def test_curves_are_appended(self, tmp_path):
        points = [{"shape": [n, 10], "bytes": 80 * n, "threads": 2, "seconds": {"ours": n * 1e-6, "eager": n * 2e-6,
                   "copy": n * 1e-6}} for n in (1, 10, 100)]  # fmt: skip
        curve = {"op": CE, "axis": "rows", "threads": 2, "values": [1, 10, 100], "points": points, "overhead_us": 0.0,
                 "gb_per_s": 0.08, "largest_deviation": 0.25}  # fmt: skip
        document.write(tmp_path / "scaling.json", {**run_of(), "scaling": [curve]})
        document.write(tmp_path / "performance.json", run_of(row("a", STEADY)))
        (tmp_path / "README.md").write_text(f"{report_docs.BEGIN}\n{report_docs.END}\n")
        files = (tmp_path / name for name in ("performance.json", "performance.md", "README.md", "scaling.json"))
        report_docs.write(*files)
        page = (tmp_path / "performance.md").read_text()
        assert "cross_entropy against rows, 2 threads: 0 us and bytes at 0.08 GB/s; largest deviation 25%" in page
        assert (tmp_path / f"scaling-{CE}.png").stat().st_size > 1000

    def test_kernels_are_appended(self, tmp_path):
        at = {"ns": 0.25, "share": [0.9, 0.8, 1.0]}
        rows = [{"name": "softmax of 10", "dtype": "bfloat16", "bytes": 5e6, "levels": {"avx2": at}}]
        about = {"machine": {"date": "today"}, "command": "python -m bench.roofline", "threads": 2}
        kernels = {**about, "levels": ["avx2"], "rows": rows}
        (tmp_path / "roofline.json").write_text(json.dumps(kernels))
        document.write(tmp_path / "performance.json", run_of(row("a", STEADY)))
        (tmp_path / "README.md").write_text(f"{report_docs.BEGIN}\n{report_docs.END}\n")
        files = (tmp_path / name for name in ("performance.json", "performance.md", "README.md"))
        report_docs.write(*files, kernels=tmp_path / "roofline.json")
        page = (tmp_path / "performance.md").read_text()
        assert "`python -m bench.roofline`, 2 threads, today" in page
        assert "| softmax of 10 | bfloat16 | 5 | 0.250 | 90% |" in page

    @pytest.mark.parametrize("text", ["", report_docs.BEGIN, f"{report_docs.END} {report_docs.BEGIN}"])
    def test_a_text_without_markers_is_refused(self, text):
        with pytest.raises(ValueError, match="bench:begin"):
            report_docs.between_markers(text, "x")

    def test_the_readme_has_the_markers(self):
        report_docs.between_markers((report_docs.ROOT / "README.md").read_text(), "x")

    def test_nothing_to_draw_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="at least one row"):
            plots.overview(run_of(row("a", STEADY, error="it failed")), tmp_path / "x.png")
