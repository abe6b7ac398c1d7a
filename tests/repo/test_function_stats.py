from pathlib import Path

from tests.repo.function_stats import function_lengths, percentile, report

SOURCE = '''
def one(): ...

class Thing:
    @property
    def three(self):
        """Text."""
        return 3

async def outer():
    def inner():
        return 1
    return inner
'''


def test_functions_are_measured_from_def_to_their_end() -> None:
    assert dict(function_lengths(SOURCE)) == {"one": 1, "three": 3, "outer": 4, "inner": 2}


def test_a_percentile_is_one_of_the_lengths() -> None:
    assert percentile([5, 1, 3], 0.5) == 3
    assert percentile(list(range(1, 11)), 0.9) == 9
    assert percentile([7], 0.9) == 7


def test_the_report_names_the_longest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    assert report(tmp_path) == [
        "modules: 1, lines median 13, p90 13, longest 13 (a.py)",
        "functions: 4, lines median 2, p90 4, longest 4 (a.py outer)",
    ]
