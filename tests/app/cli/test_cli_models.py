"""A price table that is wrong is found before it costs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_the_command_line_and_the_doctor_name_the_file_and_the_entry(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('currency = "USD"\n[models.mine]\ninput = "-1"\noutput = "1"\n')
    worker = shell("worker", EVENTWRIGHT_PRICES=str(file))
    assert worker.code != 0
    assert f"error: the price table {file} cannot be used: models.mine.input: " in worker.err.replace("\n", " ")
    checks = shell("doctor", "--json", EVENTWRIGHT_PRICES=str(file)).json["checks"]
    [model] = [check for check in checks if check["name"] == "model"]
    assert (model["status"], model["advice"]) == ("fail", "look at EVENTWRIGHT_PRICES")
    assert f"{file} cannot be used: models.mine.input" in model["detail"]
