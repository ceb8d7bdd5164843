"""There is no way around the gate: from a graph to the world, from a script to a tool, from a worker to the network."""

from __future__ import annotations

import ast
import asyncio
import importlib
import ipaddress
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventwright.tools.contract import OutsideGate, Tool
from eventwright.tools.langchain_tools import as_langchain

ROOT = Path(__file__).parents[2]
GRAPHS = sorted((ROOT / "graphs").rglob("*.py"))
#: Modules through which Python reaches a network, another program, or code that somebody wrote as a text.
WAYS_OUT = {
    *(
        "aiohttp",
        "aiosmtplib",
        "asyncpg",
        "code",
        "ctypes",
        "ftplib",
        "http",
        "httpx",
        "imaplib",
        "importlib",
        "multiprocessing",
    ),
    *("openai", "paramiko", "pickle", "poplib", "pty", "redis", "requests", "runpy", "shelve", "smtplib", "socket"),
    *("socketserver", "ssl", "subprocess", "telnetlib", "urllib3", "websockets", "xmlrpc"),
}
#: The same of modules that have harmless parts as well.
PARTS = {"urllib.request", "os.system", "os.popen", "os.execv", "os.spawnv", "os.fork", "asyncio.subprocess"}
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
METHODS = {
    *("open_connection", "open_unix_connection", "create_connection", "create_datagram_endpoint"),
    *("create_subprocess_exec", "create_subprocess_shell", "sock_connect", "import_module"),
    # What a tool is behind its gate.
    *("perform", "function"),
}


def ways_out(source: str) -> list[str]:
    """What in a module reaches past the tools."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
            found += [name for name in names if name.partition(".")[0] in WAYS_OUT or PARTS & {name, str(module)}]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] if node.func.id in CALLS else []
        elif isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            found += [dotted] if node.attr in METHODS or dotted in PARTS else []
    return found


def contract(name: str) -> dict[str, list[str]]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [found] = [one for one in pyproject["tool"]["importlinter"]["contracts"] if one["name"] == name]
    return found


# -- from a graph ------------------------------------------------------------------------------------------------------


def test_the_import_rules_keep_every_client_out_of_the_graphs() -> None:
    rule = contract("a graph reaches the world through tools alone")

    assert rule["source_modules"] == ["eventwright.graphs"]
    assert {"httpx", "requests", "smtplib", "aiosmtplib", "socket", "subprocess"} <= set(rule["forbidden_modules"])


def test_the_import_rules_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", GRAPHS, ids=lambda file: file.stem)
def test_no_graph_reaches_a_network_a_program_or_code_in_a_text(file: Path) -> None:
    assert ways_out(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "sin",
    [
        "import requests",
        "import http.client",
        "from urllib.request import urlopen",
        "def node(state):\n    import socket",
        "from subprocess import run",
        "import os\nos.system('true')",
        "eval('1')",
        "__import__('httpx')",
        "import importlib\nimportlib.import_module('httpx')",
        "import asyncio\nasyncio.open_connection('127.0.0.1', 80)",
        "mail.send.perform(arguments, call)",
        "mail.send.function('ann@example.org')",
    ],
)
def test_that_look_at_the_graphs_would_see_it(sin: str) -> None:
    assert ways_out(sin)


# -- from a script -----------------------------------------------------------------------------------------------------


def shipped_tools() -> Iterator[Tool]:
    folder = ROOT / "tools" / "eventwright" / "tools"
    for file in sorted(folder.glob("*.py")):
        module = importlib.import_module(f"eventwright.tools.{file.stem}")
        yield from {id(value): value for value in vars(module).values() if isinstance(value, Tool)}.values()


async def test_no_shipped_tool_works_outside_of_a_gate() -> None:
    tools = {tool.name: tool for tool in shipped_tools()}
    assert {"mail.send", "payments.refund", "crm.find_account", "model.ask"} <= set(tools)

    for tool in tools.values():
        arguments = dict.fromkeys(tool.arguments.model_fields, "x")
        with pytest.raises(OutsideGate):
            await tool(**arguments)
        with pytest.raises(OutsideGate):
            await asyncio.to_thread(tool.from_thread, **arguments)
        with pytest.raises(OutsideGate):
            await as_langchain(tool).ainvoke(arguments)


# -- from a worker -----------------------------------------------------------------------------------------------------


def is_here(address: str) -> bool:
    """A path, or an address of the loopback."""
    return address.startswith("/") or ipaddress.ip_address(address).is_loopback


def test_a_worker_under_attack_connects_to_nothing_but_the_loopback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.lonely_process", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])

    assert told["wrong"] == []
    assert told["starts"] == []
    assert "127.0.0.1" in told["connects"], "the mail server was not reached, so nothing was seen"
    assert [address for address in told["connects"] if not is_here(address)] == []
    assert [name for name in told["resolves"] if not is_here(name)] == []
