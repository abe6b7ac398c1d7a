"""Engines' own metrics, from a model server's page to what the admin port shows."""

from pathlib import Path

from tests.app.programs import documents, model_server, serving
from tests.app.waiting import eventually


async def test_the_engine_is_read_while_it_is_there_and_unknown_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "servers.yaml"
    with model_server(tmp_path / "engine.log") as engine:
        file.write_text(documents(engine, loadBalancing={"strategy": "SlotBased"}))
        with serving(file, tmp_path / "serve.log") as serve:
            await eventually(lambda: serve.endpoints()[engine]["engineRunning"] == 0)
            file.write_text(documents(engine, "127.0.0.1:1", loadBalancing={"strategy": "SlotBased"}))
            await eventually(lambda: "127.0.0.1:1" in serve.endpoints())
            assert serve.endpoints()["127.0.0.1:1"]["engineRunning"] is None
            file.write_text(documents(engine, loadBalancing={"strategy": "WeightedLeastConnections"}))
            await eventually(lambda: serve.endpoints()[engine]["engineRunning"] is None)
