"""Requests under way in the embedded server's vLLM backend, with a server that is slow, stuck or stopping."""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.patience import PATIENCE_S
from tests.unit.backends.test_vllm_contract import BACKEND


class Output:
    """A tensor of a response."""


class Response(str):
    """A response of the server's; what it says stands for it."""

    outputs: list[Output]

    def __new__(cls, text: str) -> Response:
        made = super().__new__(cls, text)
        made.outputs = [Output()]
        return made

    def output_tensors(self) -> list[Output]:
        return list(self.outputs)


class Sender:
    """Triton's response sender as the backend sees it. ``way`` closed is a server that takes nothing."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.sending = threading.Event()
        self.way = threading.Event()
        self.way.set()
        self.looks: Callable[[], bool] = lambda: False

    def send(self, response: Response, flags: int = 0) -> None:
        self.sending.set()
        assert self.way.wait(PATIENCE_S)
        self.sent.append(response)

    def is_cancelled(self) -> bool:
        return self.looks()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BACKEND))  # as Triton's stub finds it
    return importlib.import_module("vllm_backend.exchanges")


@pytest.fixture
def serving(module: Any) -> Iterator[Any]:
    """Makes ``Exchanges`` with a pulse; what is logged is in its ``logged``. ``others``: what else Triton's module has."""
    made = []

    def make(pulse: Callable[[], None] = lambda: None, soon: Callable[[Any], None] = lambda _: None, **others: Any) -> Any:
        logged: list[str] = []
        server = SimpleNamespace(
            TRITONSERVER_RESPONSE_COMPLETE_FINAL=1, Logger=SimpleNamespace(log_warn=logged.append), **others
        )
        exchanges = module.Exchanges(server, pulse, soon)
        exchanges.logged = logged
        made.append(exchanges)
        return exchanges

    yield make
    for exchanges in made:
        exchanges.close()


def test_the_last_response_does_not_overtake_one_that_was_accepted_before(module: Any) -> None:
    order: list[str] = []
    others: list[threading.Thread] = []

    def post(item: Any) -> None:
        exchange, response, last = item
        if not last:  # at the worst moment somebody else ends the request
            others.append(threading.Thread(target=exchange.send, args=("end",), kwargs={"last": True}))
            others[0].start()
            others[0].join(timeout=0.1)
        order.append(response)

    exchange = module.Exchange(Sender(), post)
    exchange.send(Response("token"), last=False)
    others[0].join()
    exchange.send(Response("late"), last=False)
    assert order == ["token", "end"]


def test_a_server_that_takes_nothing_holds_up_nobody_but_the_sending_thread(serving: Any) -> None:
    exchanges, stuck, other, ended = serving(), Sender(), Sender(), threading.Event()
    stuck.way.clear()
    exchange = exchanges.open(stuck)
    exchange.cancel = lambda: None
    exchange.send(Response("token"), last=False)
    assert stuck.sending.wait(PATIENCE_S)

    def go_on() -> None:
        exchange.send(Response("another"), last=False)
        exchanges.end_all(lambda: Response("end"))
        ended.set()

    threading.Thread(target=go_on, daemon=True).start()
    assert ended.wait(PATIENCE_S)
    cancelled = threading.Event()
    waiting = exchanges.open(other)
    waiting.cancel, other.looks = cancelled.set, lambda: True
    assert cancelled.wait(PATIENCE_S)
    waiting.send(Response("cancelled"), last=True)
    assert not exchanges.wait_for_end(0.0)
    stuck.way.set()
    assert exchanges.wait_for_end(PATIENCE_S)
    assert (stuck.sent, other.sent) == (["token", "another", "end"], ["cancelled"])


def test_cancellations_are_looked_for_whatever_the_server_answers(serving: Any) -> None:
    looked, asked, cancelled, sender = threading.Event(), threading.Event(), threading.Event(), Sender()

    def pulse() -> None:
        if looked.is_set():
            asked.set()
        raise RuntimeError("the server stops")

    def looks() -> bool:
        looked.set()
        if not asked.is_set():
            raise RuntimeError("no answer")
        return True

    exchanges = serving(pulse)
    sender.looks = looks
    exchange = exchanges.open(sender)
    exchange.cancel = cancelled.set
    assert cancelled.wait(PATIENCE_S)
    exchange.send(Response("end"), last=True)
    assert exchanges.wait_for_end(PATIENCE_S)
    assert set(exchanges.logged) == {
        "it is not known whether a request was cancelled: no answer",
        "it is not known whether the model is being unloaded: the server stops",
    }
    assert len(exchanges.logged) <= 3  # once in a row, not ten times a second


def test_outputs_that_the_server_drops_while_it_sends_are_not_freed_there(serving: Any) -> None:
    """Triton does it without Python's lock."""

    class Dropping(Sender):
        def send(self, response: Response, flags: int = 0) -> None:
            output = weakref.ref(response.outputs.pop())
            super().send(Response(f"{response}: {'kept' if output() is not None else 'freed'}"), flags)

    sender = Dropping()
    exchanges = serving()
    exchanges.open(sender).send(Response("answer"), last=True)
    assert exchanges.wait_for_end(10) and sender.sent == ["answer: kept"]


def test_a_child_sends_what_a_step_has_given_in_one_message(serving: Any) -> None:
    messages: list[list[tuple[str, str, int]]] = []
    to_call: list[Callable[[], None]] = []
    exchanges = serving(soon=to_call.append, send_all=messages.append)
    one, two = exchanges.open("one"), exchanges.open("two")
    one.send("a", last=False)
    two.send("b", last=True)
    assert (messages, len(to_call), one.unsent) == ([], 1, 1)
    to_call.pop()()
    assert messages == [[("one", "a", 0), ("two", "b", 1)]] and one.unsent == 0
    one.send("c", last=False)
    to_call.pop()()
    assert messages[1:] == [[("one", "c", 0)]]


def test_a_child_whose_event_loop_hangs_still_ends_all_requests(serving: Any) -> None:
    messages: list[list[tuple[str, str, int]]] = []
    exchanges = serving(send_all=messages.append)  # nothing that is to be called is
    exchanges.open("one").send("a", last=False)
    exchanges.end_all(lambda: "end")
    assert messages == [[("one", "a", 0), ("one", "end", 1)]]
    assert exchanges.wait_for_end(0.0)


def test_a_message_that_cannot_be_sent_keeps_nobody_waiting(serving: Any) -> None:
    def send_all(answers: list[Any]) -> None:
        raise OSError("nobody listens")

    exchanges = serving(send_all=send_all)
    exchanges.open("one").send("end", last=True)
    exchanges.end_all(lambda: "end")
    assert exchanges.wait_for_end(0.0)
    assert exchanges.logged == ["a response could not be sent: nobody listens"]
