"""The processes that render chat templates: what is hostile, absurd or unlucky costs one request, and nothing else."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from time import monotonic, process_time

import psutil
import pytest

from modelium.gateway.openai import template_process
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.template_renderer import Renderer
from modelium.values import JsonValue
from tests.patience import PATIENCE_S, work_s

TALK: list[JsonValue] = [{"role": "user", "content": "Hi"}]
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
_DOUBLED = "{% set a = [a, a] %}{% set b = [b, b] %}" * 29
BOMBS = [
    ENDLESS,
    "{% for c in 'aaaaaaaaaa' recursive %}{{ loop('aaaaaaaaaa') }}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ [0] * 10 ** 10 }}",
    "{{ 10 ** 10 ** 8 | int ** 9 ** 9 }}",
    "{% set n = namespace(s='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{{ 'a' | center(10 ** 10) }}",
    "{{ 'a'.ljust(10 ** 10) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'a' | replace('a', 'b' * 1000000) | replace('b', 'c' * 1000000) }}",
    "{{ range(10 ** 9) | list }}",
    "{{ messages | tojson(indent=10 ** 8) }}",
    "{% set s %}{% for i in range(100000) %}{{ 'a' * 10000 }}{% endfor %}{% endset %}{{ s }}",
    "{{ lipsum(n=10 ** 6) }}",
    "{% set a = [1] %}{% set b = [1] %}" + _DOUBLED + "{{ a == b }}",
    "{% set a = [1] %}{% set b = [1] %}" + _DOUBLED + "{{ a | tojson }}",
    "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{{ (2 ** 9999 - 1) ** 9999 }}",
    "{% set s = 'a' * 1000 %}" + "{% set s %}{{ s }}{{ s }}{% endset %}" * 22 + "{{ s | length }}",
    "{{ '{:{}}'.format('x', 1500000000) }}",
    "{{ '{:{}}'.format('x', 100000000) }}",
    "{% set s = 'a' * 500000000 %}{{ s | list | length }}",
    "{{a}}{{b}}" * 50_000,
    "{{ [0] * 300000000 }}",
    "{{ raise_exception([0] * 50000000) }}",
]


async def test_a_hostile_template_neither_hangs_nor_fills_nor_stops_the_controller() -> None:
    renderer = Renderer(seconds=0.15)
    gaps = [0.0]

    async def tick() -> None:
        last = process_time()
        while True:
            await _turn()
            now = process_time()
            gaps.append(now - last)
            last = now

    ticker = asyncio.ensure_future(tick())
    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(*(renderer.render(bomb, {"messages": TALK}) for bomb in BOMBS), return_exceptions=True)
    ticker.cancel()
    await renderer.close()
    assert [bomb[-60:] for bomb, answer in zip(BOMBS, answers, strict=True) if not isinstance(answer, BadRequest)] == []
    assert max(gaps) < 10 * work_s(), "this process, whose turns they are, computes for none of them"
    assert _processes() == []


async def test_a_renderer_that_is_killed_fails_one_request_and_the_next_has_another() -> None:
    renderer = Renderer()
    assert await renderer.render("{{ a }}", {"a": "before"}) == "before"
    [process] = _processes()
    busy = asyncio.ensure_future(renderer.render(ENDLESS, {}))
    await _until(lambda: process.cpu_percent() > 0)
    process.kill()
    with pytest.raises(BadRequest, match="its process ended"):
        await busy
    assert await renderer.render("{{ a }}", {"a": "after"}) == "after"
    await renderer.close()
    assert _processes() == []


async def test_a_client_that_goes_away_ends_its_rendering() -> None:
    renderer = Renderer()
    assert await renderer.render("{{ a }}", {"a": "1"}) == "1"
    busy = asyncio.ensure_future(renderer.render(ENDLESS, {}))
    [process] = _processes()
    await _until(lambda: process.cpu_percent() > 0)
    busy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await busy
    assert await renderer.render("{{ a }}", {"a": "2"}) == "2"
    await renderer.close()
    assert _processes() == []


@pytest.mark.parametrize("template", [None, ENDLESS])
async def test_the_program_ends_with_the_controller(template: str | None) -> None:
    """At once when it waits for a request, and by itself when it computes and cannot see that its parent is gone."""
    program = await asyncio.create_subprocess_exec(sys.executable, "-P", template_process.__file__, stdin=PIPE, stdout=PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    assert await program.stdout.readexactly(9) == b"\0\0\0\5ready"
    if template is not None:
        request = json.dumps({"template": template, "variables": {}, "seconds": 0.2}).encode()
        program.stdin.write(len(request).to_bytes(4) + request)
    program.stdin.close()
    assert await asyncio.wait_for(program.wait(), PATIENCE_S) == (0 if template is None else -signal.SIGALRM)
    assert await program.stdout.read() == b""


def _processes() -> list[psutil.Process]:
    """The renderers of this process, dead ones that nobody has taken leave of included."""
    found = psutil.Process().children()
    return [each for each in found if each.status() == psutil.STATUS_ZOMBIE or "template_process" in " ".join(each.cmdline())]


async def _until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    ends_at = monotonic() + seconds
    while not condition():
        assert monotonic() < ends_at, "it never happened"
        await _turn()


async def _turn() -> None:
    """One turn of the loop, a hundredth of a second long."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, done.set_result, None)
    await done
