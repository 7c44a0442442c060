"""Pages of Modelium's own: a script and a style enter, the headers leave that let these run and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping


def headers_of_page(script: str, style: str) -> Mapping[str, str]:
    """What is in the page runs, by its digest; it talks to this gateway alone, and no other page may frame it."""
    policy = [
        "default-src 'none'",
        f"script-src {_digest(script)}",
        f"style-src {_digest(style)}",
        "connect-src 'self'",
        "img-src data:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "; ".join(policy),
        "Cross-Origin-Opener-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
