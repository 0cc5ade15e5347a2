"""The benchmark tool: its table, its statistics and what it writes. Nothing here depends on how long a thing takes."""

import copy
import gc
import json
import random
import sys
import types
from dataclasses import replace

import pytest
import torch

from bench import __main__ as command
from bench import (
    bandwidth,
    cases,
    cold,
    compare,
    cuda,
    document,
    models,
    peers,
    plots,
    report,
    report_docs,
    runner,
    scaling,
    timing,
)
from bench.cases import BCE, CE, Case
from bench.timing import Plan

SHORT = Plan(seconds=0.0, min_rounds=2, max_rounds=2)
TINY = {1: (130,), 2: (6, 130), 4: (2, 5, 4, 6)}


def tiny(case):
    """The row at a size that takes no time."""
    shape = (3, 70) if case.is_optimizer else TINY[len(case.shape)]
    return replace(case, shape=shape, model="", floors={}, compiled=False, headline=False)


def every_kind(takes=lambda case: True):
    """One tiny row for all that differ in their size alone, by what is left of the label."""
    return {small.label: small for small in map(tiny, cases.CASES) if takes(small)}


@pytest.fixture
def quickly(monkeypatch, threads):
    """No warm-up, no large buffers, one thread."""
    threads(1)
    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # takes longer than a row
    monkeypatch.setattr(timing, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(timing, "MAX_LOOPS", 1)
    monkeypatch.setattr(timing.Step, "max_loops", 1)
    monkeypatch.setattr(timing, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(cold, "LEAST_BYTES", 1 << 12)
    monkeypatch.setattr(cold, "cache_bytes", lambda: 0)
    monkeypatch.setattr(bandwidth, "QUICK_SIZES", (1 << 12, 1 << 14))
    monkeypatch.setattr(bandwidth, "QUICK_PLAN", SHORT)
    monkeypatch.setattr(command, "QUICK", SHORT)
    monkeypatch.setattr(scaling, "QUICK", SHORT)


def row(label, ratios, threads=2, **more):
    """A row of a document, as a run would record it."""
    found = {
        "label": label, "threads": threads, "op": CE, "optimizer": False, "shape": [4, 10], "model": "",
        "dtype": "float32", "layout": "contiguous", "variant": "fresh", "part": "both", "cold": False,
        "headline": True, "remark": "", "bytes": 4096, "floors": {}, "rounds": 9, "ms": 2.0, "ms_interval": [1.9, 2.1],
        "peers_ms": {name: 2.0 * ratio[0] for name, ratio in ratios.items()}, "gb_per_s": 2.0, "ratios": ratios,
        "peak": {"ours": 2.0, "eager": 4.0}, "differs": [], "skipped": {}, "warnings": [], "others_busy": 0.0,
        "busy": False, "error": "",
    }  # fmt: skip
    return {**found, **more}


def run_of(*rows):
    """A document, as a run would write it."""
    about = {
        "cpu": "a processor", "cpus": 2, "cache_bytes": 1 << 20, "torch": "2", "fused_ml": "0", "isa": "avx2",
        "python": "3", "date": "2020-02-02", "environment": {},
    }  # fmt: skip
    speeds = [{"threads": 2, "bytes": size, "copy": 9.0, "read": 8.0, "triad": 7.0} for size in (1 << 16, 1 << 20)]
    return document.document("python -m bench", about, {"jax": "missing: no jax"}, speeds, rows)


STEADY = {"copy": [0.5, 0.49, 0.51], "eager": [4.0, 3.9, 4.1]}
HALVED = {"copy": [0.25, 0.24, 0.26], "eager": [2.0, 1.9, 2.1]}
NOISY = {"copy": [0.4, 0.2, 0.6], "eager": [3.0, 1.5, 5.0]}


class TestCases:
    def test_labels_are_unique(self):
        labels = [case.label for case in cases.CASES]
        assert len(set(labels)) == len(labels)

    def test_every_row_is_well_formed(self):
        for case in cases.CASES:
            assert case.op in cases.PASSES, case.label
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


class TestRuns:
    @pytest.mark.parametrize("case", every_kind().values(), ids=lambda case: case.label)
    def test_every_kind_of_row(self, quickly, case):
        found = runner.run(case, SHORT, peers.BUILT_IN)
        assert found.error == ""
        assert found.skipped == {}
        known = ["fused"] if (case.op, case.dtype) == ("SGD", "bfloat16") else []  # pytorch issue 191763
        assert found.differs in ([], known)
        assert {"eager", "copy"} <= set(found.ratios)
        assert "normal" in found.ratios or case.variant != "denormal"
        assert {"operator", "kernel"} <= set(found.ratios) or case.variant != "call"
        assert document.record(found)["rounds"] == 2

    @pytest.mark.parametrize("layout", [layout for layout in cases.LAYOUTS if layout != "contiguous"])
    def test_layouts_are_what_they_say(self, layout):
        from bench.functions import arranged

        plain = torch.randn((2, 3, 4, 5) if layout == "channels_last" else (6, 130))
        found = arranged(plain, layout)
        assert torch.equal(found, plain)
        assert not found.is_contiguous()

    def test_a_wrong_peer_is_noted(self, quickly, monkeypatch):
        wrong = replace(peers.PEERS[0], build=lambda case, inputs: peers._eager(replace(case, op="softmax"), inputs))
        monkeypatch.setattr(peers, "PEERS", (wrong,))
        found = runner.run(Case("log_softmax", (4, 10)), SHORT)
        assert found.differs == ["eager"]

    def test_a_missing_peer_says_why(self, quickly, monkeypatch):
        absent = replace(peers.PEERS[0], name="absent", modules=("no_such_module",), packages=("no-such-package",))
        monkeypatch.setattr(peers, "PEERS", (peers.PEERS[0], absent))
        assert "no_such_module does not import" in absent.missing()
        assert "make bench-peers" in absent.missing()
        found = runner.run(Case(CE, (4, 10), compiled=False), SHORT, ("eager", "absent"))
        assert "no_such_module" in found.skipped["absent"]
        assert "eager" in found.ratios
        assert peers.about(("absent",))["absent"].startswith("missing: no_such_module")

    def test_a_row_too_large_for_memory_is_left_out(self, quickly, monkeypatch):
        monkeypatch.setattr(runner, "available_bytes", lambda: 100)
        found = runner.run(Case(CE, (4, 10), compiled=False), SHORT)
        assert "GB are free" in found.skipped["eager"]

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [peer.name for peer in peers.PEERS if peer.optional])
    def test_optional_peers_agree_where_they_are_installed(self, quickly, name):
        (peer,) = [peer for peer in peers.PEERS if peer.name == name]
        if reason := peer.missing():
            pytest.skip(reason)
        for case in every_kind(peer.takes).values():
            found = runner.run(replace(case, compiled=True), SHORT, (name,))
            assert (found.error, found.skipped, found.differs) == ("", {}, []), case.label

    def test_a_failure_of_ours_is_recorded(self, quickly):
        found = document.record(runner.run(Case(CE, (4, 10), layout="channels_last"), SHORT))
        assert found["error"]
        assert report.lines([found])[1][:2] == [found["label"], "failed"]


class TestCommand:
    def test_a_run_writes_and_compares(self, quickly, tmp_path, capsys):
        written, drawn, page = tmp_path / "run.json", tmp_path / "run.png", tmp_path / "run.md"
        arguments = ["--quick", "--no-compile", "--only", "cross_entropy 64x10", "--threads", "1,2"]
        arguments += ["--json", str(written), "--plot", str(drawn), "--markdown", str(page)]
        assert command.main(arguments) == 0
        found = document.read(written)
        assert [(row["label"], row["threads"]) for row in found["rows"][::2]] == [
            ("cross_entropy 64x10", 1),
            ("cross_entropy 64x10", 2),
        ]
        assert "seconds" not in written.read_text()
        assert drawn.read_bytes().startswith(b"\x89PNG")
        assert "| cross_entropy 64x10 |" in page.read_text()
        assert "cross_entropy 64x10" in capsys.readouterr().out

    def test_scaling_draws_a_picture_for_each_operator(self, quickly, monkeypatch, tmp_path):
        sweeps = (cases.Sweep(CE, "rows", ((2, 10), (4, 10), (8, 10))), cases.Sweep(BCE, "columns", ((4, 2), (4, 4))))
        monkeypatch.setattr(scaling, "SWEEPS", sweeps)
        monkeypatch.setattr(scaling, "THREAD_SWEEPS", (Case(CE, (4, 10), (4, 10)),))
        drawn, written = tmp_path / "s.png", tmp_path / "s.json"
        assert (
            command.main(["--quick", "--scaling", "--threads", "1,2", "--plot", str(drawn), "--json", str(written)])
            == 0
        )
        assert {path.name for path in tmp_path.glob("*.png")} == {f"s-{CE}.png", f"s-{BCE}.png"}
        curves = document.read(written)["scaling"]
        assert [(curve["op"], curve["axis"], curve["threads"]) for curve in curves] == [
            (CE, "rows", 1), (BCE, "columns", 1), (CE, "rows", 2), (BCE, "columns", 2), (CE, "threads", None),
        ]  # fmt: skip
        assert curves[0]["values"] == [2, 4, 8]

    def test_regressions_set_the_exit_status(self, monkeypatch, tmp_path):
        document.write(tmp_path / "old.json", run_of(row("a", STEADY)))
        for after, status in ((HALVED, 1), (STEADY, 0)):
            monkeypatch.setattr(command, "_measure", lambda *_, after=after: run_of(row("a", after)))
            assert command.main(["--compare", str(tmp_path / "old.json")]) == status

    def test_what_is_no_run_is_refused(self, tmp_path, capsys):
        (tmp_path / "old.json").write_text(json.dumps({"rows": []}))
        assert command.main(["--compare", str(tmp_path / "old.json")]) == 2
        assert "expected format 1, got None" in capsys.readouterr().err

    def test_list(self, capsys):
        assert command.main(["--list", "--only", "cross_entropy 64x10", "--peers", "eager,kernel"]) == 0
        shown = capsys.readouterr().out
        assert "cross_entropy 64x10: 0.005632 MB; eager; floors: eager 1.3x" in shown
        assert "peer kernel: there" in shown

    @pytest.mark.parametrize("arguments", [["--threads", "0"], ["--threads", "1,x"], ["--peers", "numpy"]])
    def test_options_are_checked(self, arguments, capsys):
        with pytest.raises(SystemExit):
            command.main(arguments)
        assert "expected" in capsys.readouterr().err


class TestCuda:
    def test_peers_are_adapted_to_a_mean_over_rows(self, monkeypatch):
        def parallel_cross_entropy(x, target, label_smoothing, reduce_loss):
            assert (x.dim(), target.dim(), label_smoothing, reduce_loss) == (3, 2, 0.0, True)
            return torch.nn.functional.cross_entropy(x.flatten(0, 1), target.flatten())

        module = types.ModuleType("transformer_engine.pytorch.cross_entropy")
        module.parallel_cross_entropy = parallel_cross_entropy
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for parent in ("transformer_engine", "transformer_engine.pytorch"):
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
        found = cuda.peers()
        assert cuda.agrees(found["te"], CE, torch.float32, torch.device("cpu"))


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

    @pytest.mark.parametrize("text", ["", report_docs.BEGIN, f"{report_docs.END} {report_docs.BEGIN}"])
    def test_a_text_without_markers_is_refused(self, text):
        with pytest.raises(ValueError, match="bench:begin"):
            report_docs.between_markers(text, "x")

    def test_the_readme_has_the_markers(self):
        report_docs.between_markers((report_docs.ROOT / "README.md").read_text(), "x")

    def test_nothing_to_draw_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="at least one row"):
            plots.overview(run_of(row("a", STEADY, error="it failed")), tmp_path / "x.png")
