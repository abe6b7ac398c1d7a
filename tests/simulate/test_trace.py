"""Recorded requests as their publishers wrote them, and what is said of files that are not."""

from pathlib import Path

import pytest

from tailrace.simulate.engine import Hardware
from tailrace.simulate.requests import source
from tailrace.simulate.run import simulate
from tailrace.simulate.trace import Arrival, BadTraceError, Trace, read_trace

MOONCAKE = """\
{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 3052, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]}
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
OWN = """\
seconds,prompt,output,session
12.5,100,20,a
14,50,0,
"""


def written(folder: Path, content: str) -> Path:
    path = folder / "trace"
    path.write_text(content)
    return path


def test_mooncake_s_lines_have_milliseconds_and_ids_of_blocks(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, MOONCAKE))
    assert trace.block_tokens == 512
    assert trace.arrivals == (Arrival(0.0, 6758, 500, (0, 1, 2)), Arrival(3.052, 7322, 490, (0, 14)))


def test_mooncake_s_requests_of_one_step_of_time_are_spread_over_it(tmp_path: Path) -> None:
    times = (0, 0, 0, 3000, 5999, 5999)
    lines = [f'{{"timestamp": {at}, "input_length": 1, "output_length": 1}}\n' for at in times]
    trace = read_trace(written(tmp_path, "".join(lines)))
    assert [arrival.at for arrival in trace.arrivals] == pytest.approx([0.0, 1.0, 2.0, 3.0, 5.999, 7.4985])


@pytest.mark.parametrize("content", [MOONCAKE, OWN], ids=["mooncake", "own"])
def test_a_mark_of_utf_8_before_a_trace_is_no_part_of_it(tmp_path: Path, content: str) -> None:
    plain = read_trace(written(tmp_path, content))
    assert read_trace(written(tmp_path, "\ufeff" + content)) == plain


def test_azure_s_table_has_times_of_day(tmp_path: Path) -> None:
    first, second = read_trace(written(tmp_path, AZURE)).arrivals
    assert (first.at, first.prompt, first.output) == (0.0, 374, 44)
    assert second.at == pytest.approx(4.314579)


def test_a_table_of_one_s_own_may_name_sessions(tmp_path: Path) -> None:
    arrivals = read_trace(written(tmp_path, OWN)).arrivals
    assert [(each.at, each.prompt, each.output, each.session) for each in arrivals] == [
        (0.0, 100, 20, "a"),
        (1.5, 50, 1, ""),
    ]


@pytest.mark.parametrize("content", [AZURE, OWN + "20,300,9,a\n21,300,9,a\n"], ids=["azure", "own"])
def test_no_two_prompts_of_a_table_begin_alike_even_of_one_session(tmp_path: Path, content: str) -> None:
    blocks = [block for each in read_trace(written(tmp_path, content)).arrivals for block in each.chain]
    assert len(set(blocks)) == len(blocks) > 0


def test_a_prompt_of_a_table_has_as_many_blocks_as_it_is_long_and_at_least_one(tmp_path: Path) -> None:
    lengths = (1, 127, 128, 255, 256, 12_800)
    rows = "".join(f"{number},{length},1\n" for number, length in enumerate(lengths))
    trace = read_trace(written(tmp_path, "seconds,prompt,output\n" + rows))
    assert trace.block_tokens == 128
    assert [len(each.chain) for each in trace.arrivals] == [1, 1, 1, 1, 2, 100]


def test_a_line_of_mooncake_s_without_ids_is_like_no_other(tmp_path: Path) -> None:
    more = "".join(f'{{"timestamp": {at}, "input_length": 1024, "output_length": 1}}\n' for at in (9000, 12000))
    chains = [each.chain for each in read_trace(written(tmp_path, MOONCAKE + more)).arrivals]
    assert chains[:2] == [(0, 1, 2), (0, 14)]
    assert [len(chain) for chain in chains[2:]] == [2, 2]
    assert len({0, 1, 2, 14, *chains[2], *chains[3]}) == 8


@pytest.mark.parametrize("rule", ["kubeai-prefix-hash", "sglang-cache-aware"])
def test_rules_that_look_at_prompts_spread_those_of_a_table(tmp_path: Path, rule: str) -> None:
    """One at a time, so that nothing but the prompts tells requests apart: not even the count of those in flight."""
    rows = "".join(f"{60 * number},100,1\n" for number in range(40))
    trace = read_trace(written(tmp_path, "seconds,prompt,output\n" + rows))
    run = simulate(trace, [Hardware()] * 4, rule, seed=1)
    assert set(run.places) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no requests"),
        ("when,what\n1,2\n", r"line 1: no column 'seconds'; expected seconds, prompt, output"),
        ("seconds,prompt,output\n1,2,3\n1,many,2\n", r"line 3: prompt is 'many', which is no number"),
        ("seconds,prompt,output\n1,2\n", r"line 2: output is None, which is no number"),
        ("seconds,prompt,output\nnan,2,3\n", r"line 2: seconds is 'nan', which is no time"),
        ("seconds,prompt,output\n1,1000000000000,3\n", r"line 2: prompt is 1000000000000, more than 10000000"),
        ("seconds,prompt,output\n1," + "2" * 200_000 + ",3\n", r"field larger than"),
        ('{"timestamp": 0}\n', r"line 1: no 'input_length'; expected timestamp"),
        ('{"timestamp": null, "input_length": 1, "output_length": 1}\n', r"line 1: timestamp is None"),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1e99}\n', r"line 1: output_length is 1e\+99"),
        ("{nonsense\n", "line 1"),
        (MOONCAKE + '{"timestamp": ' + "[" * 100_000 + "\n", r"line 3: nested too deeply"),
        (MOONCAKE.replace("[0, 14]", '"ab"'), r"line 2: hash_ids is no list of whole numbers"),
        (MOONCAKE.replace("[0, 14]", "[[0], 14]"), r"line 2: hash_ids is no list of whole numbers"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,2\n", r"line 2: .*noon"),
    ],
)
def test_what_is_no_trace_is_said_with_the_file(tmp_path: Path, content: str, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(BadTraceError, match=said) as error:
        read_trace(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadTraceError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none")


def test_a_trace_can_be_cut_and_made_faster() -> None:
    trace = Trace(tuple(Arrival(float(second), 1, 1) for second in range(10)), block_tokens=16)
    cut = trace.between(4.0, 6.0).faster(2.0)
    assert [each.at for each in cut.arrivals] == [0.0, 0.5]
    assert cut.block_tokens == 16


def test_each_seed_has_a_part_of_a_recorded_trace_of_its_own(tmp_path: Path) -> None:
    rows = "".join(f"{second},10,1\n" for second in range(60))
    path = written(tmp_path, "seconds,prompt,output\n" + rows)
    parts = source(path, "", rate=1.0, seconds=30.0, parts=3)
    assert [len(parts(seed).arrivals) for seed in range(3)] == [10, 10, 10]
    whole = source(path, "", rate=1.0, seconds=0.0, parts=1)
    assert len(whole(0).arrivals) == 60


@pytest.mark.parametrize(
    ("rows", "seconds", "parts", "said"),
    [
        (3, 120.0, 5, r"3 requests, 3 of them in the 21 s .* 5 parts .* --seeds 3 is the most"),
        (60, 15.0, 5, r"60 requests, 2 of them in the 15 s .* --seeds 2 is the most .* --seconds 0 takes the whole"),
        (1, 0.0, 2, r"1 request, 1 of them in the 1 s .* --seeds 1 is the most"),
    ],
)
def test_a_trace_with_too_few_requests_says_how_many_and_which_options_help(
    tmp_path: Path, rows: int, seconds: float, parts: int, said: str
) -> None:
    path = written(tmp_path, "seconds,prompt,output\n" + "".join(f"{10 * row},10,1\n" for row in range(rows)))
    with pytest.raises(BadTraceError, match=said):
        source(path, "", rate=1.0, seconds=seconds, parts=parts)


def test_a_trace_that_begins_after_the_seconds_taken_is_said_to_have_none_there(tmp_path: Path) -> None:
    path = written(tmp_path, '{"timestamp": 90000, "input_length": 9, "output_length": 9}\n')
    with pytest.raises(BadTraceError, match=r"0 of them in the 60 s .* empty\. --seconds 0 takes"):
        source(path, "", rate=1.0, seconds=60.0, parts=1)


def test_the_most_seeds_that_are_named_are_enough(tmp_path: Path) -> None:
    path = written(tmp_path, "seconds,prompt,output\n" + "".join(f"{at},10,1\n" for at in (0, 1, 2, 30, 70)))
    with pytest.raises(BadTraceError) as told:
        source(path, "", rate=1.0, seconds=0.0, parts=9)
    most = int(str(told.value).partition("--seeds ")[2].partition(" ")[0])
    parts = source(path, "", rate=1.0, seconds=0.0, parts=most)
    assert all(parts(seed).arrivals for seed in range(most))


def test_made_requests_differ_by_seed_and_need_an_end() -> None:
    make = source(None, "bursts", rate=5.0, seconds=20.0, parts=2)
    assert make(0) == make(0) != make(1)
    with pytest.raises(BadTraceError, match="no workload 'calm'; there are no-sharing"):
        source(None, "calm", rate=1.0, seconds=1.0, parts=1)
    with pytest.raises(BadTraceError, match="give --seconds"):
        source(None, "bursts", rate=1.0, seconds=0.0, parts=1)
