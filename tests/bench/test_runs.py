"""The benchmark tool: a tiny run of every kind of row, and its command line. No timing is judged."""

import gc
import json
import sys
import types
from dataclasses import replace

import pytest
import torch
from bench_documents import HALVED, STEADY, row, run_of

from bench import __main__ as command
from bench import bandwidth, cases, cold, cuda, document, peers, report, runner, scaling, timing
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

    def test_the_roofline_has_every_kernel_in_both_types(self, monkeypatch, tmp_path, capsys):
        roofline = pytest.importorskip("bench.roofline", exc_type=ModuleNotFoundError)
        monkeypatch.setattr(roofline, "PLAN", SHORT)
        monkeypatch.setattr(roofline.cases, "__defaults__", (roofline.CLASSES,))
        monkeypatch.setattr("sys.argv", ["roofline", "--json", str(tmp_path / "r.json")])
        roofline.main()
        found = json.loads((tmp_path / "r.json").read_text())
        assert len(found["rows"]) == 2 * (3 * 6 + 6)
        assert all(at["ns"] > 0 for row in found["rows"] for at in row["levels"].values())
        assert "log-softmax backward of 10" in capsys.readouterr().out

    def test_regressions_set_the_exit_status(self, monkeypatch, tmp_path):
        document.write(tmp_path / "old.json", run_of(row("a", STEADY)))
        for after, status in ((HALVED, 1), (STEADY, 0)):
            monkeypatch.setattr(command, "_measure", lambda *_, after=after: run_of(row("a", after)))
            assert command.main(["--compare", str(tmp_path / "old.json")]) == status

    def test_rows_timed_anew_replace_their_own(self, monkeypatch, tmp_path, capsys):
        path = tmp_path / "run.json"
        monkeypatch.setattr(command.machine, "describe", lambda: run_of()["machine"])
        document.write(path, run_of(row("a", HALVED), row("b", HALVED), row("a", HALVED, 1)))
        new = run_of(row("a", STEADY), row("c", STEADY))
        monkeypatch.setattr(command, "_measure", lambda *_: {**new, "command": "again"})
        assert command.main(["--json", str(path), "--update"]) == 0
        found = document.read(path)
        ratios = {(row["label"], row["threads"]): row["ratios"] for row in found["rows"]}
        assert ratios == {("a", 2): STEADY, ("b", 2): HALVED, ("a", 1): HALVED, ("c", 2): STEADY}
        assert found["updates"] == [{"command": "again", "date": "2020-02-02", "rows": 2}]
        assert "2 rows again, 2020-02-02: again" in "\n".join(report.head(found))

        monkeypatch.setattr(command.machine, "describe", lambda: {**run_of()["machine"], "torch": "3"})
        assert command.main(["--json", str(path), "--update"]) == 2
        assert "torch: 2 and 3" in capsys.readouterr().err
        assert document.read(path) == found

    def test_an_update_needs_a_run(self, tmp_path, capsys):
        with pytest.raises(SystemExit):
            command.main(["--json", str(tmp_path / "none.json"), "--update"])
        assert "the file of an earlier run" in capsys.readouterr().err

    def test_what_is_no_run_is_refused(self, tmp_path, capsys):
        (tmp_path / "old.json").write_text(json.dumps({"rows": []}))
        assert command.main(["--compare", str(tmp_path / "old.json")]) == 2
        assert "expected format 1, got None" in capsys.readouterr().err

    def test_memory_is_kept_by_a_process_started_anew(self, monkeypatch):
        class Started(Exception):
            pass

        def execve(program, arguments, environment):
            raise Started(program, arguments, environment)

        monkeypatch.setattr(command.os, "execve", execve)
        with pytest.raises(Started) as caught:
            command.main(["--keep-memory", "--list"])
        program, arguments, environment = caught.value.args
        assert (program, arguments) == (sys.executable, [sys.executable, "-m", "bench", "--keep-memory", "--list"])
        assert environment["MALLOC_MMAP_MAX_"] == "0"

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
