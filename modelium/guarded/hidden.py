"""Arguments that a program gets and nobody else sees: a command line with stand-ins enters, the same program leaves started
with the true ones, while ``ps`` (and every other user, who may read ``/proc/PID/cmdline``) goes on showing the stand-ins.

Triton takes the secret of its restricted APIs from its command line only. What is in a process's *environment*, on the other
hand, only its own user may read. So the true argument is put there, behind a stand-in, and between ``execve`` and the program's
first instruction the pointer in its argument vector is turned to it. That needs ``ptrace`` of one's own child, as a debugger
does; a machine that forbids it is an ``OSError``. Standard library only: the guardian imports this. Linux with 64 bits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Callable, Mapping

_PTRACE_TRACEME = 0
_PTRACE_DETACH = 17
_VARIABLE = "MODELIUM_ARGUMENT_"
_CUT = b"\x01"  # becomes the end of the stand-in, and what follows it the argument
_WORD = struct.calcsize("P")
_START_OF_STACK = 27  # of /proc/PID/stat, counted from 0 with the name left out: see proc(5), startstack


class CannotHide(OSError):
    """This machine does not let a program trace its own child."""


def with_hidden(environment: Mapping[str, str], hidden: Mapping[str, str]) -> dict[str, str]:
    """The environment with each true argument behind its stand-in; the program will find the stand-ins alone in it."""
    cut = _CUT.decode()
    variables = {f"{_VARIABLE}{number}": f"{shown}{cut}{true}" for number, (shown, true) in enumerate(sorted(hidden.items()))}
    return {**environment, **variables}


def ask_to_be_traced(libc: ctypes.CDLL) -> None:
    """In the child, before ``execve``: it stops there until ``reveal`` lets it go on. Raises ``CannotHide``."""
    if libc.ptrace(_PTRACE_TRACEME, 0, None, None) != 0:
        raise CannotHide(ctypes.get_errno(), "a child cannot be traced here")


def reveal(libc: ctypes.CDLL, pid: int, hidden: Mapping[str, str]) -> int | None:
    """Wait for the child's ``execve``, give the program its true arguments, let it run.

    A status as ``waitpid`` gives it when the child has ended instead. Raises ``CannotHide``; the child is then killed.
    """
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        return status
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 - no buffer may come between
            _turn_pointers(memory.seek, memory.read, memory.write, _start_of_stack(pid), hidden)
        if libc.ptrace(_PTRACE_DETACH, pid, None, None) != 0:
            raise CannotHide(ctypes.get_errno(), "the child cannot be let go")
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise CannotHide(f"the arguments of a child cannot be changed here: {error}") from error
    return None


def _start_of_stack(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - of the guardian's few files
        stat = file.read()
    return int(stat[stat.rindex(")") + 2 :].split()[_START_OF_STACK - 2])


def _turn_pointers(
    seek: Callable[[int], int],
    read: Callable[[int], bytes],
    write: Callable[[bytes], int],
    stack: int,
    hidden: Mapping[str, str],
) -> None:
    """The stack of a program that has not begun: the number of arguments, pointers to them, 0, pointers to variables, 0."""

    def word(at: int) -> int:
        seek(at)
        return int(struct.unpack("P", read(_WORD))[0])

    def text(at: int) -> bytes:
        found = bytearray()
        while b"\0" not in found:
            seek(at + len(found))
            part = read(256)
            if not part:
                raise ValueError("a text without an end")
            found += part
        return bytes(found[: found.index(b"\0")])

    arguments = [stack + _WORD * (1 + number) for number in range(word(stack))]
    shown = {text(word(at)): at for at in arguments}
    left = {stand_in.encode() for stand_in in hidden}
    at = arguments[-1] + 2 * _WORD
    while pointer := word(at):
        at += _WORD
        variable = text(pointer)
        if not variable.startswith(_VARIABLE.encode()):
            continue
        name, _, value = variable.partition(b"=")
        stand_in, cut, _true = value.partition(_CUT)
        if not cut or stand_in not in shown:
            raise ValueError(f"{name.decode()} belongs to no argument")
        place = pointer + len(name) + 1 + len(stand_in)
        seek(place)
        write(b"\0")
        seek(shown[stand_in])
        write(struct.pack("P", place + 1))
        left.discard(stand_in)
    if left:
        raise ValueError(f"{len(left)} arguments were not found")
