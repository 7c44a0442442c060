"""What a file is by its ending, and which hosts are this machine: one answer for all who ask."""

from __future__ import annotations

import pytest

from modelium.cli.remote import is_local
from modelium.config import GatewaySettings
from modelium.file_names import BARE_WEIGHTS, WHOLE_MODELS, is_archive, is_weights, is_whole_model
from modelium.hosts import is_loopback


@pytest.mark.parametrize("ending", BARE_WEIGHTS + WHOLE_MODELS)
def test_weights_are_known_by_their_endings(ending: str) -> None:
    assert is_weights(f"m{ending}") and is_weights(f"M{ending.upper()}")
    assert is_whole_model(f"m{ending}") is (ending in WHOLE_MODELS)
    assert is_archive(f"m{ending}.gz") and not is_archive(f"m{ending}")


@pytest.mark.parametrize(
    "name", ["config.json", "optimizer.pt", "training_args.bin", "rng_state_0.pth", "model.safetensors.tmp"]
)
def test_other_files_are_none(name: str) -> None:
    assert not is_weights(name) and not is_archive(name)


@pytest.mark.parametrize(
    "ending", ["zip", "7z", "rar", "tar", "tgz", "tbz2", "txz", "tzst", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"]
)
def test_archives_are_known_by_theirs(ending: str) -> None:
    assert is_archive(f"m.{ending}") and is_archive(f"M.{ending.upper()}")
    assert not is_archive(f"m.{ending}.log") and not is_weights(f"m.{ending}")


def test_a_compressed_file_is_an_archive_where_it_is_a_models() -> None:
    assert not is_archive("serve.log.gz")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "", "10.0.0.1"])
def test_loopback_is_the_same_for_all(host: str) -> None:
    is_here = host in ("localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "::1")
    assert is_loopback(host) is is_here
    assert GatewaySettings(host=host).open_to_all is not is_here
    assert is_local(f"http://[{host}]:1" if ":" in host else f"http://{host}:1") is is_here
