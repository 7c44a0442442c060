"""The examples of a page of the documentation: they run as they stand there, but for names and addresses."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def examples_of(page: str, using: str) -> list[str]:
    """The Python of that page in which ``using`` stands."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [code for code in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if using in code]


async def run_example(code: str, base_url: str, **names: str) -> None:
    """With OpenAI's client at ``base_url``; ``names``: what stands for the quoted words of the page."""
    code = code.replace("http://127.0.0.1:8080/v1", base_url)
    for name, instead in names.items():
        assert f'"{name}"' in code, f"{name!r} is not in the example"
        code = code.replace(f'"{name}"', repr(instead))
    ran: dict[str, Any] = {}
    await asyncio.to_thread(exec, code.replace("client = ", "ran['client'] = client = "), {"ran": ran})
    ran["client"].close()
