"""The verbs' HTTP client and what they make of replies: errors in one sentence, and the gateway's own JSON read back."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from modelium import views
from modelium.cli import replies, show
from modelium.cli.remote import Refused, Remote, Unreachable, find_key, model_path
from modelium.cli.terminal import duration
from modelium.errors import ConfigError
from modelium.values import (
    Decision,
    Device,
    DeviceKind,
    Fleet,
    Footprint,
    MissingPart,
    ModelProfile,
    ModelStatus,
    NurseryStatus,
    Placement,
    Plan,
    Runtime,
    ServerStatus,
    Snapshot,
    State,
    Task,
    Verb,
    Weighed,
)
from modelium.views import Status, written
from tests.unit.views import snapshot_view

HOST = Device(id="host", kind=DeviceKind.HOST, index=-1, name="memory", total_bytes=2**34, used_bytes=2**30, budget_bytes=2**33)
KEPT = Decision(at=40.0, model="minilm", verb=Verb.KEEP, rule="evict.3", reason="kept: 0.300 requests/s is over 0.01")
LOADED = ModelStatus(
    name="minilm",
    label="org/minilm",
    path=Path("incoming/org/minilm"),
    state=State.LOADED,
    reason="loaded",
    profile=ModelProfile(
        name="minilm",
        path=Path("incoming/org/minilm"),
        task=Task.FEATURE_EXTRACTION,
        library="sentence-transformers",
        architecture="BertModel",
        parameters=22_713_216,
        weight_bytes=90_852_864,
        embedding_width=384,
        max_length=256,
    ),
    placement=Placement(
        runtime=Runtime.PYTHON,
        device_id="host",
        device_kind=DeviceKind.HOST,
        device_index=-1,
        footprint=Footprint(estimated_bytes=600 * 2**20),
        max_batch_size=32,
    ),
    footprint=Footprint(estimated_bytes=600 * 2**20, measured_bytes=440 * 2**20),
    held_bytes=410 * 2**20,
    qps=0.3,
    idle_s=4000.0,
    requests=18,
    loads=2,
    unloads=1,
    load_seconds=3.2,
    pinned=True,
    decisions=(KEPT,),
)
COPYING = ModelStatus(
    name="llama",
    label="llama",
    path=Path("incoming/llama"),
    state=State.INCOMPLETE,
    reason="model-00002-of-00003.safetensors: 1.2 of 4.9 GiB",
    missing=(MissingPart(file="model-00002-of-00003.safetensors", present_bytes=12 * 10**8, expected_bytes=49 * 10**8),),
)
FAILED = ModelStatus(
    name="broken",
    label="broken",
    path=Path("broken"),
    state=State.FAILED,
    reason="[red]boom[/red]",
    failures=4,
    quarantined=True,
)
SNAPSHOT = Snapshot(
    now=50.0,
    models=(LOADED, COPYING, FAILED),
    fleet=Fleet(devices=(HOST,)),
    server=ServerStatus(up=True, version="2.51.0"),
    scanned=True,
)


def text_of(content: RenderableType, width: int = 200) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(content)
    return capture.get()


def reply_of(view: object) -> bytes:
    return json.dumps(view).encode()


@contextmanager
def answering(
    status: int, body: bytes | Mapping[str, bytes], bodies: list[bytes] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server that gives one canned answer (or one for each path), and what it was asked; ``bodies``: what came."""
    asked: list[str] = []
    came = [] if bodies is None else bodies

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            came.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            sent = [self.headers.get(name, "") for name in ("X-Request-Timeout", "Authorization")]
            asked.append(" ".join([self.command, self.path, *filter(None, sent)]))
            self.send_response(status)
            answer = body if isinstance(body, bytes) else body[self.path]
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


# -- asking --------------------------------------------------------------------------------------------------------


def test_nobody_there_says_how_to_start_one() -> None:
    with answering(200, b"") as (url, _):
        pass  # the port was free a moment ago and is again
    with pytest.raises(Unreachable, match=rf"no Modelium answers at {url}; start one with `modelium serve`"):
        Remote(url).get("/models")


@pytest.mark.parametrize("url", ["http://256.0.0.1:1", "nonsense", "ftp://"])
def test_an_address_that_is_none_is_no_trace(url: str) -> None:
    with pytest.raises(Unreachable, match="no Modelium answers at"):
        Remote(url).get("/models")


def test_an_error_of_the_gateway_is_its_own_sentence() -> None:
    body = json.dumps({"error": "no model 'bret'; did you mean bert?", "type": "unknown_model"}).encode()
    with answering(404, body) as (url, _), pytest.raises(Refused) as caught:
        Remote(url).get("/models/bret")
    assert (str(caught.value), caught.value.type, caught.value.status) == (
        "no model 'bret'; did you mean bert?",
        "unknown_model",
        404,
    )


def test_somebody_else_on_the_port_is_recognised() -> None:
    with answering(404, b"<html>nginx</html>") as (url, _), pytest.raises(Refused, match="is it the gateway"):
        Remote(url).get("/models")


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"did not answer within 0\.1 s"):
            Remote(url).get("/models", timeout_s=0.1)


def test_a_wish_carries_its_deadline() -> None:
    with answering(200, b"{}") as (url, asked):
        Remote(url).post(model_path("minilm", "load"), timeout_s=12.5)
    assert asked == ["POST /models/minilm/load 12.5"]


def test_the_environments_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with answering(200, b"here") as (url, _):
        assert Remote(url).get("/models") == b"here"


def test_the_key_is_the_files_then_the_environments_then_the_gateways_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, own = tmp_path / "given", tmp_path / "own"
    given.write_text("# mine\nme: given-key-0123456789\nlater-key-0123456789\n", encoding="utf-8")
    own.write_text("gateways-key-0123456789\n", encoding="utf-8")
    monkeypatch.delenv("MODELIUM_API_KEY", raising=False)
    assert find_key(None) is None
    assert find_key(None, gateways_own=tmp_path / "nowhere") is None
    assert find_key(None, gateways_own=own) == "gateways-key-0123456789"
    monkeypatch.setenv("MODELIUM_API_KEY", " environments-key-01 ")
    assert find_key(None, gateways_own=own) == "environments-key-01"
    assert find_key(given, gateways_own=own) == "given-key-0123456789"
    with answering(200, b"{}") as (url, asked):
        Remote(url, key=find_key(given)).get("/models")
    assert asked == ["GET /models Bearer given-key-0123456789"]


def test_a_key_that_is_none_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELIUM_API_KEY", "secret\r\nX-Injected: 1")
    with pytest.raises(ConfigError, match=r"\$MODELIUM_API_KEY holds something that is no key") as caught:
        find_key(None)
    assert "secret" not in str(caught.value)
    (tmp_path / "empty").write_text("# none\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="there is no API key in"):
        find_key(tmp_path / "empty")


def test_a_refused_verb_says_how_to_send_a_key() -> None:
    body = json.dumps({"error": "an API key is needed", "type": "unauthorized"}).encode()
    with (
        answering(401, body) as (url, _),
        pytest.raises(Refused, match=r"\$MODELIUM_API_KEY, or the first key of --api-key-file"),
    ):
        Remote(url).get("/models")


# -- reading what the gateway really writes ------------------------------------------------------------------------


def test_the_list_has_every_model_with_state_memory_and_use() -> None:
    table = text_of(show.models(replies.models(reply_of(snapshot_view(SNAPSHOT)))))
    rows = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert all(
        word in rows["minilm"]
        for word in ("LOADED", "feature-extraction", "python", "host", " 410 MiB", "0.30", "1 h 6 min", "pinned")
    )
    assert "1.2 of 4.9 GiB" in rows["llama"]
    assert "[red]boom[/red]" in rows["broken"], "a reason is text, never markup"


def test_a_list_without_models_says_what_to_do() -> None:
    empty = Snapshot(now=0, models=(), fleet=Fleet(devices=()), server=ServerStatus(detail="port 8000 is taken"), scanned=True)
    text = text_of(show.models(replies.models(reply_of(snapshot_view(empty)))))
    assert "drop a Hugging Face folder" in text
    assert "Triton is not up: port 8000 is taken" in text


def test_the_list_says_where_unloads_left_memory_behind() -> None:
    leaky = replace(HOST, id="cuda:0", leaked_bytes=3 * 2**30)
    found = Snapshot(now=0, models=(), fleet=Fleet(devices=(HOST, leaky)), server=ServerStatus(up=True), scanned=True)
    text = text_of(show.models(replies.models(reply_of(snapshot_view(found)))))
    assert "cuda:0: 3.0 GiB leaked" in text and "host" not in text


def test_the_list_has_a_row_for_the_nursery_where_there_is_one() -> None:
    nursery = NurseryStatus(processes=2, children=5, held_bytes=300 * 2**20)
    found = Snapshot(now=0, models=(), fleet=Fleet(devices=(HOST,)), server=ServerStatus(up=True), nursery=nursery)
    text = text_of(show.models(replies.models(reply_of(snapshot_view(found)))))
    assert "(nursery)" in text and "300 MiB" in text and "ready, shared with 5 of the models' processes" in text
    without = text_of(show.models(replies.models(reply_of(snapshot_view(SNAPSHOT)))))
    assert "nursery" not in without


def test_the_list_says_which_loads_wait_for_a_nursery() -> None:
    nursery = NurseryStatus(processes=0, children=0, held_bytes=0, importing=("python",))
    waits_for = "the nursery of python, which imports (since 3 s)"
    loading = replace(LOADED, name="coming", label="coming", state=State.LOADING, held_bytes=None, waits_for=waits_for)
    found = replace(SNAPSHOT, models=(LOADED, loading), nursery=nursery)
    table = text_of(show.models(replies.models(reply_of(snapshot_view(found)))))
    rows = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert "importing them for python" in rows["(nursery)"] and "0 B" not in rows["(nursery)"]
    assert "waits for the nursery of python" in rows["coming"] and "waits" not in rows["minilm"]
    for told in (show.model, show.reasons):
        assert waits_for in " ".join(text_of(told(replies.model(reply_of(written(Status, loading, 50.0))))).split())
        assert "nursery" not in text_of(told(replies.model(reply_of(written(Status, LOADED, 50.0)))))


def test_what_is_not_loaded_is_listed_with_what_it_is_expected_to_take() -> None:
    unloaded = replace(LOADED, state=State.UNLOADED, held_bytes=None)
    text = text_of(show.models(replies.models(reply_of(snapshot_view(replace(SNAPSHOT, models=(unloaded,)))))))
    assert "~440 MiB" in text


def test_the_status_tells_what_is_known() -> None:
    text = text_of(show.model(replies.model(reply_of(written(Status, LOADED, 50.0)))))
    for words in (
        "org/minilm",
        "22,713,216 parameters",
        "600 MiB estimated (+36%), 440 MiB measured",
        "384 wide",
        "2 (1 unloads)",
        "evict.3",
        "10 s ago",
    ):
        assert words in text


def test_the_status_of_a_copy_under_way_names_what_is_missing() -> None:
    text = text_of(show.model(replies.model(reply_of(written(Status, COPYING, 50.0)))))
    assert "model-00002-of-00003.safetensors: 1.1 of 4.6 GiB" in text


def test_the_status_of_a_failure_says_whether_it_is_tried_again() -> None:
    text = text_of(show.model(replies.model(reply_of(written(Status, FAILED, 50.0)))))
    assert "4, quarantined until the folder changes" in text


def test_why_gives_rule_and_reason() -> None:
    model = replies.model(reply_of(written(Status, LOADED, 50.0)))
    assert "kept: 0.300 requests/s is over 0.01" in text_of(show.reasons(model))
    assert json.loads(replies.decisions_json(model))[0]["rule"] == "evict.3"
    nothing = replies.model(reply_of(written(Status, COPYING, 50.0)))
    assert "nothing was decided" in text_of(show.reasons(nothing))


def test_why_shows_what_was_weighed_when_it_went() -> None:
    went, stayed = (
        Weighed(
            model=name,
            goes=goes,
            kept_by="" if goes else "nothing",
            harm=0.0012,
            idle_s=600.0,
            qps=0.0,
            next_s=next_s,
            load_s=6.0,
            bytes=16 * 2**30,
        )
        for name, goes, next_s in (("minilm", True, 2400.0), ("llama", False, None))
    )
    unload = Decision(
        at=40.0, model="minilm", verb=Verb.UNLOAD, rule="evict.6", reason="b waits", beneficiary="b", weighed=(went, stayed)
    )
    model = replies.model(reply_of(written(Status, replace(LOADED, decisions=(unload,)), 50.0)))
    text = text_of(show.reasons(model))
    assert "weighed for b" in text
    [one] = [line.split() for line in text.splitlines() if "went" in line]
    assert one == ["minilm", "went", "0.0012", "10", "min", "0", "s", "0.00", "40", "min", "0", "s", "6.0", "s", "16.0", "GiB"]
    assert "stayed" in text and "not known" in text


def test_the_plan_shows_pressure_and_steps() -> None:
    load = Decision(at=50.0, model="llama", verb=Verb.LOAD, rule="load.3", reason="it fits", placement=LOADED.placement)
    view = written(
        views.Plan, Plan(actions=(load,), decisions=(load, KEPT), pressure={"host": "95 % of its budget is taken"}), 50.0
    )
    text = text_of(show.plan(replies.plan(reply_of(view))))
    assert "host is under pressure: 95 % of its budget is taken" in text
    assert text.count("llama") == 1, "an action is listed once"
    assert "evict.3" in text
    assert "nothing to do" in text_of(show.plan(replies.plan(reply_of(written(views.Plan, Plan(), 0.0)))))


def test_the_plan_tells_why_a_model_waits_before_what_its_first_request_does() -> None:
    load = Decision(at=50.0, model="llama", verb=Verb.LOAD, rule="plan.3", reason="it fits", placement=LOADED.placement)
    waits = Decision(at=50.0, model="llama", verb=Verb.WAIT, rule="plan.4", reason="its first request loads it")
    made = Plan(actions=(load,), decisions=(KEPT, waits, load))
    text = text_of(show.plan(replies.plan(reply_of(written(views.Plan, made, 50.0)))))
    assert [rule for rule in text.split() if rule in ("plan.3", "plan.4", "evict.3")] == ["plan.4", "plan.3", "evict.3"]


@pytest.mark.parametrize(
    ("verb", "words"), [("load", "loaded: LOADED in 3.2 s on host, 410 MiB"), ("pin", "pinned"), ("unload", "unloaded")]
)
def test_a_wish_is_confirmed_in_one_line(verb: str, words: str) -> None:
    text = text_of(show.outcome(verb, replies.model(reply_of(written(Status, LOADED, 50.0)))))
    assert words in text
    assert len(text.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, ""), (0.4, "0 s"), (75, "1 min 15 s"), (4000, "1 h 6 min"), (200_000, "2 d 7 h")]
)
def test_durations_are_told_as_people_do(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_a_reply_of_another_version_is_an_error_with_its_place() -> None:
    with pytest.raises(replies.NotUnderstood, match=r"models\.0\.state"):
        replies.models(b'{"models": [{"name": "x"}]}')
    with pytest.raises(replies.NotUnderstood, match="at its start"):
        replies.models(b"not json")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_long_name_leaves_everybody_elses_state_readable(width: int) -> None:
    """Of the longest name there is (and of a label of wide letters) the middle is left out; a usual name is whole."""
    usual = replace(LOADED, name="sentence-transformers--all-MiniLM-L6-v2", label="sentence-transformers/all-MiniLM-L6-v2")
    longest = replace(LOADED, name="begin" + "n" * 190 + "ended", label="模" * 120, state=State.UNSUPPORTED)
    found = snapshot_view(replace(SNAPSHOT, models=(usual, longest)))
    said = text_of(show.models(replies.models(reply_of(found))), width)
    states = {"LOADED": usual.name, "UNSUPPORTED": "begin"}
    for word, name in states.items():
        (line,) = [line for line in said.splitlines() if word in line.split()]
        assert name in line
    assert usual.label in said and "…" in said and "nended" in said
    kept = Decision(at=40.0, model=longest.name, verb=Verb.KEEP, rule="evict.3", reason="kept: it is asked")
    planned = text_of(show.plan(replies.plan(reply_of(written(views.Plan, Plan(decisions=(kept,)), 50.0)))), width)
    assert "nended  keep" in planned and "kept: it is asked" in " ".join(planned.split())
