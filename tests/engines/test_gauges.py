from pathlib import Path

import pytest

from tailrace.engines.families import FAMILIES, Family, family
from tailrace.engines.gauges import Gauges, read_gauges

PAYLOADS = Path(__file__).parent / "payloads"
VLLM = family("vllm")


def vllm(running: str, waiting: str) -> str:
    return f"vllm:num_requests_running{running}\nvllm:num_requests_waiting{waiting}\n"


@pytest.mark.parametrize(
    ("payload", "engine", "expected"),
    [
        ("vllm", "vllm", Gauges(12, 3, 0, 0.62)),
        ("vllm-old", "vllm", Gauges(0, 0, 2, 0.0125)),
        ("sglang", "sglang", Gauges(16, 2, 1, 0.28)),
        ("trtllm", "trtllm", Gauges(4, 1, 0, 0.0625)),
        ("triton", "triton", Gauges(4, 3, 6, 0.4875)),
        ("tgi", "tgi", Gauges(6, 2)),
        ("llamacpp", "llamacpp", Gauges(4, 46)),
    ],
)
def test_each_family_is_read_from_a_recorded_payload(payload: str, engine: str, expected: Gauges) -> None:
    assert read_gauges((PAYLOADS / f"{payload}.txt").read_text(), family(engine)) == expected


@pytest.mark.parametrize("row", [row for row in FAMILIES.values() if row.has_gauges], ids=lambda row: row.name)
def test_each_family_is_idle_when_every_sample_is_zero(row: Family) -> None:
    lines = (PAYLOADS / f"{row.name}.txt").read_text().splitlines()
    zeroed = "\n".join(line if line.startswith("#") or not line else line.rpartition(" ")[0] + " 0" for line in lines)
    gauges = read_gauges(zeroed, row)
    assert gauges is not None
    assert gauges.idle


def test_a_generic_openai_server_has_no_gauges() -> None:
    assert not family("openai").has_gauges
    assert read_gauges((PAYLOADS / "vllm.txt").read_text(), family("openai")) is None


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"engine: 'vlm' is not known; use one of vllm, sglang"):
        family("vlm")


@pytest.mark.parametrize("row", FAMILIES.values(), ids=lambda row: row.name)
def test_every_family_has_a_health_path_and_all_gauges_or_none(row: Family) -> None:
    assert row.health_path.startswith("/")
    assert (row.metrics_path is None) == (row.running is None) == (row.waiting is None)


@pytest.mark.parametrize("missing", ["vllm:num_requests_running", "vllm:num_requests_waiting"])
def test_a_missing_gauge_makes_the_reading_unknown(missing: str) -> None:
    text = vllm(" 0", " 0").replace(missing, "vllm:other")
    assert read_gauges(text, VLLM) is None


def test_help_and_type_lines_alone_are_no_reading() -> None:
    text = "# TYPE vllm:num_requests_running gauge\n# TYPE vllm:num_requests_waiting gauge\n"
    assert read_gauges(text, VLLM) is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "", "abc", "0x1", "1e308", "9" * 400])
def test_a_value_that_is_no_count_makes_the_reading_unknown(value: str) -> None:
    text = vllm(f'{{engine="0"}} {value}', " 0") + 'vllm:num_requests_running{engine="1"} 0\n'
    assert read_gauges(text, VLLM) is None


def test_a_negative_sample_does_not_cancel_a_positive_one() -> None:
    text = vllm('{engine="0"} -2', " 0") + 'vllm:num_requests_running{engine="1"} 2\n'
    assert read_gauges(text, VLLM) is None


def test_a_held_request_that_cannot_be_read_makes_the_reading_unknown() -> None:
    assert read_gauges(vllm(" 0", " 0") + "vllm:num_requests_swapped NaN\n", VLLM) is None


def test_a_label_without_an_end_is_read_over_at_once() -> None:
    endless = "a" * 1_000_000  # begun at each of its letters, it would take an hour
    assert read_gauges(vllm(f"{{{endless}}} 1", " 2"), VLLM) == Gauges(1, 2)


@pytest.mark.parametrize("gauges", [Gauges(1, 0), Gauges(0, 1), Gauges(0, 0, 1), Gauges(0.5, 0)])
def test_an_engine_with_anything_left_is_not_idle(gauges: Gauges) -> None:
    assert not gauges.idle


@pytest.mark.parametrize(
    "sample",
    [
        " 3",
        "{} 3.0",
        '{model_name="a"} 3e0 1712345678901',
        '{model_name="a", } 3',
        '{model_name="a\\"} 99 {"} 3',
        '{model_name="a}b"}\t3',
        '{model_name="a"}3',
        '{model_name="a"} 3 # {trace_id="7"} 1.0',
    ],
)
def test_every_legal_shape_of_a_sample_is_read(sample: str) -> None:
    assert read_gauges(vllm(sample, " 1").replace("\n", "\r\n"), VLLM) == Gauges(3, 1)


def test_a_longer_name_is_another_metric() -> None:
    text = vllm(" 1", " 0") + "vllm:num_requests_running_total 900\n"
    assert read_gauges(text, VLLM) == Gauges(1, 0)


def test_the_new_name_of_the_cache_gauge_wins_over_the_old_one() -> None:
    text = vllm(" 0", " 0") + "vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc 0.1\n"
    assert read_gauges(text, VLLM) == Gauges(0, 0, 0, 0.1)


@pytest.mark.parametrize(
    "text", ["", "\n", "{", "vllm:num_requests_running{", '<html lang="en">', "\x00", '{"a": [1]}']
)
def test_garbage_is_unknown_and_never_an_error(text: str) -> None:
    assert read_gauges(text, VLLM) is None
