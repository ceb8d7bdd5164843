"""A provider of models on the loopback, which answers well, badly or not at all, and the real client that asks it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from eventwright.tools.asking import ask
from eventwright.tools.building import Models, ModelSettings, build_model, build_models, close_model
from eventwright.tools.models import Answer, Question

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]

QUESTION = Question(
    purpose="classify",
    instructions="Which kind of ticket is this?",
    material="My card has not arrived.",
    schema={"type": "string", "enum": ["card_delivery", "other"]},
)
GOOD = {"value": "card_delivery", "confidence": 0.9, "reason": "it waits for a card"}


@dataclass
class Provider:
    """A server on the loopback that speaks OpenAI's protocol and gives the next reply of a script."""

    port: int = 0
    script: list[Reply] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        self.paths.append(head[0].split()[1])
        self.keys.append(headers["authorization"])
        self.requests.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
        await self.script.pop(0)(writer)


def http(body: object, status: int = 200, **headers: str) -> Reply:
    """An HTTP answer; what is no string is sent as JSON."""
    text = body if isinstance(body, str) else json.dumps(body)

    async def reply(writer: asyncio.StreamWriter) -> None:
        lines = {"content-type": "application/json", "content-length": str(len(text.encode())), "connection": "close"}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(head.encode() + b"\r\n" + text.encode())
        await writer.drain()

    return reply


def completion(message: dict[str, Any], ending: str = "tool_calls") -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-test-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": ending}],
        "usage": {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38},
    }


def called(*arguments: object, name: str = "classify", ending: str = "tool_calls") -> Reply:
    """A completion that calls the function once per argument; what is no string is sent as JSON."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in arguments]
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": text}}
        for number, text in enumerate(texts)
    ]
    return http(completion({"content": None, "tool_calls": calls}, ending))


def token(text: str | bytes, logprob: object = -0.01, **more: object) -> dict[str, object]:
    """A token in the form of the log probabilities; bytes that are no text show as their replacement."""
    raw = text.encode() if isinstance(text, str) else text
    return {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob, "top_logprobs": []} | more


def spoken(content: object, logprobs: object = None, ending: str = "stop", **message: object) -> Reply:
    """A completion that says this, with log probabilities; what is no string is sent as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    body = completion({"content": text, **message}, ending)
    body["choices"][0]["logprobs"] = logprobs
    return http(body)


def counted(usage: object, model: str = "gpt-4.1-2025-04-14") -> Reply:
    """A good answer of this model, with these numbers of tokens."""
    arguments = {"name": "classify", "arguments": json.dumps(GOOD)}
    body = completion({"content": None, "tool_calls": [{"id": "1", "type": "function", "function": arguments}]})
    return http(body | {"usage": usage, "model": model})


def problem(status: int, code: str | None = None, **headers: str) -> Reply:
    return http({"error": {"message": f"the provider says {status}", "type": "x", "code": code}}, status, **headers)


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def cut_off(writer: asyncio.StreamWriter) -> None:
    """An answer that ends in the middle."""
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{"id": "1"')
    await writer.drain()


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip(writer: asyncio.StreamWriter) -> None:
    """A byte now and then: no single read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
    while not writer.transport.is_closing():
        writer.write(b" ")
        await asyncio.sleep(0.02)


async def asked(
    provider: Provider, *script: Reply, question: Question = QUESTION, timeout: float = 20, model: str = "gpt-4.1"
) -> Answer:
    """Ask the provider, which will reply as the script says, through a client made as in production."""
    provider.script = list(script)
    settings = ModelSettings(model=model, api_key="sk-made-up", base_url=f"http://127.0.0.1:{provider.port}/v1")
    client = build_model(settings)
    try:
        return await ask(client, question, timeout=timeout)
    finally:
        await close_model(client)


@asynccontextmanager
async def models_of(provider: Provider, *script: Reply, **settings: Any) -> AsyncIterator[Models]:
    """Models made as in production, whose provider will reply as the script says."""
    provider.script = list(script)
    base_url = f"http://127.0.0.1:{provider.port}/v1"
    models = build_models(ModelSettings(**{"model": "gpt-4.1", "base_url": base_url} | settings))
    try:
        yield models
    finally:
        await models.close()


def names_asked(provider: Provider) -> Sequence[str]:
    """The models that the provider was asked for, in their order."""
    return [request["model"] for request in provider.requests]
