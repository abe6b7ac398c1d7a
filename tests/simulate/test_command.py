"""`tailrace simulate` from its options to its table."""

import shlex
from pathlib import Path

import pytest
from tests.app.programs import ROOT
from tests.simulate import example
from typer.testing import CliRunner

from tailrace.cli.main import app
from tailrace.cli.simulate import DEFAULT_STRATEGIES

QUICK = ["simulate", "--seconds", "20", "--rate", "5", "--pods", "3", "--seeds", "2"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*QUICK, *arguments])
    return result.exit_code, result.output


def test_it_prints_a_table_for_each_load_with_intervals() -> None:
    code, output = run(
        "--strategies", "RoundRobin, LeastEstimatedTTFT", "--load", "0.5", "--load", "1.5", "--slow-pods", "1"
    )
    assert code == 0
    titles = [line for line in output.splitlines() if "times the rate" in line]
    assert titles == [f"{load} times the rate, 3 pods, 1 of them at 0.5 times the speed" for load in ("0.5", "1.5")]
    assert output.count("LeastEstimatedTTFT") == output.count("RoundRobin") == 2
    assert "±" in output


def test_all_are_all() -> None:
    code, output = run("--strategies", "all", "--workload", "no-sharing")
    assert code == 0
    assert all(name in output for name in ("SessionAffinity", "kubeai-prefix-hash", "llm-d-scorers", "random"))


def test_a_trace_may_be_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("seconds,prompt,output\n" + "".join(f"{second},500,20\n" for second in range(40)))
    code, output = run("--trace", str(path), "--strategies", "LeastTokens")
    assert code == 0
    assert "LeastTokens" in output


def test_it_draws_pictures_where_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "plots.html"
    code, _ = run("--strategies", "LeastTokens,RoundRobin", "--load", "1", "--load", "2", "--plots", str(path))
    assert code == 0
    text = path.read_text()
    assert "tailrace simulate: sessions" in text
    assert text.count("<svg") == 6


def test_the_first_command_of_the_docs_runs_on_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "simulator.md").read_text()
    command = shlex.split(page.partition("```\n")[2].partition("\n")[0])
    assert command[:2] == [".venv/bin/tailrace", "simulate"]
    assert command[command.index("--trace") + 1] == str(example.FILE.relative_to(ROOT))
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, [*command[1:], "--strategies", "LeastTokens"])
    assert result.exit_code == 0, result.output
    assert result.output.count("LeastTokens") == command.count("--load")


def test_the_example_is_what_its_generator_makes() -> None:
    assert example.FILE.read_text() == example.table()


def test_the_help_shows_every_name_of_the_default_whole() -> None:
    said = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["simulate", "--help"]).output
    assert [name for name in DEFAULT_STRATEGIES.split(", ") if name not in said] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--strategies", "Best"), "no strategy Best"),
        (("--workload", "calm"), "no workload 'calm'"),
        (("--slow-pods", "4"), "4 slow pods of 3"),
        (("--trace", "nowhere"), "nowhere: cannot be read"),
        (("--strategies", "random", "--plots", "/nowhere/a.html"), "/nowhere/a.html cannot be written"),
    ],
)
def test_a_wrong_option_is_said_with_what_would_be_right(arguments: tuple[str, ...], said: str) -> None:
    code, output = run(*arguments)
    assert code == 2
    assert said in " ".join(output.replace("│", " ").split())
