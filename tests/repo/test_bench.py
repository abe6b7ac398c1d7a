import platform
from pathlib import Path

import bench.__main__ as bench
import pytest

PROGRAM = 'import sys\n\nif __name__ == "__main__":\n    {does}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the runner a folder of benchmarks of its own."""
    package = tmp_path / "bench"
    package.mkdir()
    monkeypatch.setattr(bench, "FOLDER", package)
    monkeypatch.setattr(bench, "RESULTS", package / "results")
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("x = 1\n")
    (package / "good.py").write_text(PROGRAM.format(does="print('1.5 us')"))
    return package


def test_a_result_is_kept_below_a_line_about_the_machine(folder: Path) -> None:
    assert bench.main([]) == 0
    first, _, *rest = (folder / "results" / "good.txt").read_text().splitlines()
    assert " cores, " in first
    assert rest == ["1.5 us"]


def test_a_benchmark_that_fails_keeps_its_last_result_and_fails_the_run(folder: Path) -> None:
    assert bench.main([]) == 0
    (folder / "good.py").write_text(PROGRAM.format(does="print('half'); sys.exit(3)"))
    assert bench.main([]) == 1
    assert "1.5 us" in (folder / "results" / "good.txt").read_text()


def test_an_unknown_name_is_refused_with_the_names_there_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["goood"]) == 2
    assert "no benchmark goood; there are: good" in capsys.readouterr().err


def test_options_go_to_the_benchmark_that_is_named(folder: Path) -> None:
    (folder / "good.py").write_text(PROGRAM.format(does="print(sys.argv[1:])"))
    assert bench.main(["good", "--minutes", "2"]) == 0
    assert "['--minutes', '2']" in (folder / "results" / "good.txt").read_text()


def test_a_benchmark_with_a_job_of_its_own_runs_only_when_named(folder: Path) -> None:
    (folder / "soak.py").write_text(PROGRAM.format(does="print('soaked')"))
    assert bench.main([]) == 0
    assert not (folder / "results" / "soak.txt").exists()
    assert bench.main(["soak"]) == 0
    assert (folder / "results" / "soak.txt").exists()


def test_the_machine_is_described_without_its_name() -> None:
    assert platform.node() not in bench.machine()


def test_help_runs_nothing_and_keeps_the_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.py").write_text('"""How good it is.\n\nVery."""\n' + PROGRAM.format(does="print('1.5 us')"))
    (folder / "asks.py").write_text(
        '"""What it asks."""\nimport argparse\n'
        + PROGRAM.format(does="argparse.ArgumentParser(description=__doc__).parse_args()")
    )
    assert bench.main(["--help"]) == 0
    assert "  good        How good it is." in capsys.readouterr().out
    assert bench.main(["good", "asks", "--help"]) == 0
    said = capsys.readouterr().out
    assert "Very.\n\nIt has no options." in said
    assert "What it asks." in said
    assert "--help" in said
    assert not (folder / "results").exists()
