import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.sim.conftest import Client, Connect
from tests.sim.wire import chat, metric

from tailrace.sim.histogram import Histogram

CHAT = "/v1/chat/completions"
FROZEN = {"hang": True}


async def scrape(client: Client) -> str:
    return await (await client.get("/metrics")).text()


async def freeze_with(client: Client, requests: int, **more: object) -> None:
    """Have `requests` streams in a hung engine."""
    await client.post("/faults", json=FROZEN)
    for _ in range(requests):
        await client.post(CHAT, json=chat(10, stream=True, **more))


async def test_a_prometheus_parser_reads_everything(connect: Connect) -> None:
    client = await connect()
    await (await client.post(CHAT, json=chat(5))).read()
    families = {family.name: family for family in text_string_to_metric_families(await scrape(client))}
    assert set(families) == {
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:prompt_tokens",
        "vllm:generation_tokens",
        "vllm:prefix_cache_queries",
        "vllm:prefix_cache_hits",
        "vllm:request_success",
        "vllm:cache_config_info",
        "vllm:time_to_first_token_seconds",
        "vllm:e2e_request_latency_seconds",
        "vllm:lora_requests_info",
    }
    assert families["vllm:num_requests_running"].samples[0].labels["model_name"] == "llama"


async def test_running_waiting_and_kv_usage_show_the_requests_in_the_engine(connect: Connect) -> None:
    client = await connect()
    await freeze_with(client, 34)
    text = await scrape(client)
    assert metric(text, "vllm:num_requests_running") == 32
    assert metric(text, "vllm:num_requests_waiting") == 2
    assert metric(text, "vllm:kv_cache_usage_perc") == pytest.approx(32 * 8 / 4000)


async def test_counters_add_up_tokens_and_cache_hits(connect: Connect) -> None:
    client = await connect()
    for _ in range(2):
        await (await client.post(CHAT, json=chat(5, "x" * 400))).read()
    text = await scrape(client)
    assert metric(text, "vllm:generation_tokens_total") == 10
    assert metric(text, "vllm:prompt_tokens_total") == metric(text, "vllm:prefix_cache_queries_total") == 2 * 106
    assert metric(text, "vllm:prefix_cache_hits_total") == 96
    assert metric(text, "vllm:time_to_first_token_seconds_count") == 2
    assert metric(text, "vllm:num_requests_running") == 0


async def test_the_old_name_of_the_kv_usage_replaces_the_new_one(connect: Connect) -> None:
    text = await scrape(await connect(old_metric_names=True))
    assert "vllm:gpu_cache_usage_perc{" in text
    assert "vllm:kv_cache_usage_perc" not in text


async def test_adapters_show_where_their_requests_are(connect: Connect) -> None:
    client = await connect()
    await freeze_with(client, 32)
    await client.post(CHAT, json=chat(10, stream=True, model="finance-lora"))
    assert 'max_lora="1",running_lora_adapters="",waiting_lora_adapters="finance-lora"' in await scrape(client)


async def test_a_server_without_adapters_has_no_adapter_metric(connect: Connect) -> None:
    assert "lora" not in await scrape(await connect(adapters=()))


async def test_label_values_are_escaped(connect: Connect) -> None:
    text = await scrape(await connect(models=('a"b\\c',)))
    assert 'model_name="a\\"b\\\\c"' in text


def test_a_histogram_counts_at_or_below_each_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0005, 0.001, 0.03, 9999):
        histogram.observe(seconds)
    buckets = dict(histogram.buckets())
    assert (buckets["0.001"], buckets["0.02"], buckets["0.04"], buckets["2560.0"], buckets["+Inf"]) == (2, 2, 3, 3, 4)
    assert histogram.count == 4
    assert histogram.total == pytest.approx(9999.0315)
