"""What the simulated machine is: ``8x80GiB`` or a file of models enters, devices and models leave, checked."""

from __future__ import annotations

import csv
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from modelium.config import lacks_unit, parse_bytes
from modelium.names import printable
from modelium.simulation.inputs import HEADS, SMALLEST_PART, UNLOAD_S, BadInput, SimulatedModel
from modelium.simulation.traces import MOST_MODELS
from modelium.sizes import GIB, human_bytes
from modelium.values import Device, DeviceKind, Fleet, device_id

MOST_DEVICES = 4_096
SMALLEST_DEVICE = 16 * 2**20
MADE = "made:"
_SMALLEST_MODEL = 1024
_LONGEST_FILE = 64 * 2**20
_SIZES = tuple(size * GIB for size in (1, 2, 4, 8, 14, 16, 28, 40))
_FIRST_S, _BYTES_A_SECOND = 3.0, 2 * GIB

# -- devices ---------------------------------------------------------------------------------------------------------


def parse_fleet(text: str, *, gpu_fraction: float) -> Fleet:
    """``8x80GiB``, or ``2x24GiB,host:64GiB``: GPUs of that memory, and how much of the host's models may use.

    ``gpu_fraction``: the part of a GPU that models may use. Raises ``BadInput``.
    """
    gpus: list[int] = []
    host = 0
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(?:(host):|(\d{1,5})x)?(.+)", part)
        if match is not None and lacks_unit(match[3]):
            raise BadInput(f"--fleet {text!r}: {match[3]} of what? With its unit: {part}GiB (8x80GiB are eight of 80 GiB)")
        try:
            size = parse_bytes(match[3]) if match is not None else None
        except ValueError as error:
            raise BadInput(f"--fleet {text!r}: {error}; a fleet is like 8x80GiB or 2x24GiB,host:64GiB") from None
        if match is None or not isinstance(size, int) or size <= 0:
            raise BadInput(f"--fleet {text!r}: {part!r} is no device; a fleet is like 8x80GiB or 2x24GiB,host:64GiB")
        if size < SMALLEST_DEVICE:
            raise BadInput(f"--fleet {text!r}: {part!r} is too small for any model; is it GiB that is meant?")
        if match[1]:
            host += size
        else:
            gpus += [size] * min(int(match[2] or 1), MOST_DEVICES + 1)
        if len(gpus) > MOST_DEVICES:
            raise BadInput(f"--fleet {text!r}: more than {MOST_DEVICES:,} devices")
    if not gpus and not host:
        raise BadInput(f"--fleet {text!r}: no devices; a fleet is like 8x80GiB or 2x24GiB,host:64GiB")
    devices = [_gpu(index, size, gpu_fraction) for index, size in enumerate(gpus)]
    if host:
        devices.insert(0, device_of(device_id(DeviceKind.HOST), DeviceKind.HOST, -1, total=host, budget=host))
    return Fleet(devices=tuple(devices))


def _gpu(index: int, size: int, fraction: float) -> Device:
    kind = DeviceKind.CUDA
    return device_of(device_id(kind, index), kind, index, total=size, budget=int(size * fraction))


def device_of(id: str, kind: DeviceKind, index: int, *, total: int, budget: int) -> Device:
    """An empty one."""
    name = f"{human_bytes(total)} of memory"
    return Device(id=id, kind=kind, index=index, name=name, total_bytes=total, used_bytes=0, budget_bytes=budget)


def equal_gpus(fleet: Fleet) -> Mapping[int, int]:
    """How many GPUs there are, by the bytes that models may use of each."""
    return Counter(device.budget_bytes for device in fleet.devices if device.kind is DeviceKind.CUDA)


def in_words(fleet: Fleet) -> str:
    """``8 x 80.0 GiB``, in the order of the devices."""
    counts: dict[tuple[DeviceKind, int], int] = {}
    for device in fleet.devices:
        key = (device.kind, device.total_bytes if device.kind is DeviceKind.CUDA else device.budget_bytes)
        counts[key] = counts.get(key, 0) + 1
    return ", ".join(
        f"{count} x {human_bytes(size)}" if kind is DeviceKind.CUDA else f"host: {human_bytes(size)}"
        for (kind, size), count in counts.items()
    )


# -- models ----------------------------------------------------------------------------------------------------------


def _check_size(size: int) -> int:
    if size < _SMALLEST_MODEL:
        raise ValueError(f"a model of {size} bytes is none; write the unit, as {max(size, 1)}GiB")
    return size


_Size = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0, le=2**50), AfterValidator(_check_size)]


def _check_ranks(ranks: int) -> int:
    if HEADS % ranks:
        raise ValueError(f"no model is spread over {ranks} GPUs; usual are 2, 4 and 8")
    return ranks


_Ranks = Annotated[int, Field(ge=1, le=16), AfterValidator(_check_ranks)]
_Wait = Annotated[float, Field(ge=0, le=24 * 3600.0, allow_inf_nan=False)]


class _Row(BaseModel):
    """A model as a file describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=500)]
    bytes: _Size
    load_seconds: _Wait
    unload_seconds: _Wait = UNLOAD_S
    device: str | None = None
    pinned: bool = False
    always_loaded: bool = False
    tensor_parallel: _Ranks = 1


_ROWS = TypeAdapter(list[_Row])
_COLUMNS = tuple(_Row.model_fields)


def read_models(path: Path) -> tuple[SimulatedModel, ...]:
    """The models of a CSV file (with a header, or name,bytes,load_seconds,…), or of a JSON list. Raises ``BadInput``."""
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise BadInput(f"{path}: larger than {human_bytes(_LONGEST_FILE)}; is it a list of models?")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}") from None
    if text.lstrip().startswith("{"):
        raise BadInput(
            f'{path}: one JSON object; the models are a list of them: [{{"name": …, "bytes": …, "load_seconds": …}}, …]'
        )
    if text.lstrip().startswith("["):
        return _checked(lambda: _ROWS.validate_json(text), path, "entry")
    return _checked(lambda: _ROWS.validate_python(_table(text, path)), path, "row")


def _table(text: str, path: Path) -> list[dict[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        rows = list(csv.reader(lines, strict=True))
    except csv.Error as error:
        raise BadInput(f"{path}: it is no CSV: {error}") from None
    if not rows:
        raise BadInput(f"{path}: no models in it; a line is {','.join(_COLUMNS[:4])}")
    header = tuple(field.strip() for field in rows[0])
    while len(header) > 1 and not header[-1]:  # a comma at its end
        header = header[:-1]
    columns, rows = (header, rows[1:]) if header[0] == "name" else (_COLUMNS, rows)
    if unknown := [column for column in columns if column not in _COLUMNS]:
        raise BadInput(f"{path}: there is no column {printable(unknown[0], longest=40)!r}; they are {', '.join(_COLUMNS)}")
    for number, row in enumerate(rows, 1):
        if any(field.strip() for field in row[len(columns) :]):
            raise BadInput(f"{path}, row {number}: {len(row)} fields for the columns {', '.join(columns)}")
    return [{column: value.strip() for column, value in zip(columns, row, strict=False) if value.strip()} for row in rows]


def _checked(read: object, path: Path, what: str) -> tuple[SimulatedModel, ...]:
    assert callable(read)
    try:
        rows: list[_Row] = read()
    except ValidationError as error:
        first = error.errors()[0]
        at = first["loc"]
        where = f"{what} {at[0] + 1}" if at and isinstance(at[0], int) else "its start"
        field = f", {'.'.join(str(part) for part in at[1:])}" if len(at) > 1 else ""
        raise BadInput(f"{path}, {where}{field}: {_in_words(first)}") from None
    if len(rows) > MOST_MODELS:
        raise BadInput(f"{path}: more than {MOST_MODELS:,} models")
    names: set[str] = set()
    for row in rows:
        if row.name in names:
            raise BadInput(f"{path}: {printable(row.name)!r} is in it twice")
        names.add(row.name)
    return tuple(SimulatedModel(**row.model_dump()) for row in rows)


def _in_words(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "it is missing"
    if error["type"] == "value_error":
        return printable(str(error["ctx"]["error"]), longest=200)
    return printable(error["msg"], longest=200)


def not_held(models: Iterable[SimulatedModel], fleet: Fleet) -> list[str]:
    """Those that nothing of the fleet can hold, each with why; as they were spread."""
    budgets, equal = {device.id: device.budget_bytes for device in fleet.devices}, equal_gpus(fleet)
    found = []
    for model in models:
        size = model.bytes_each
        largest, where = max((budget, device) for device, budget in budgets.items() if model.may_be_on(device))
        where = "the largest device" if model.device is None and not model.devices else where
        if model.tensor_parallel > 1 and not _has_room(model, equal):
            found.append(
                f"{printable(model.name, longest=60)} ({human_bytes(size)} on each of {model.tensor_parallel} equal GPUs)"
            )
        elif model.tensor_parallel == 1 and size > largest:
            found.append(f"{printable(model.name, longest=60)} ({human_bytes(size)}; {where} has {human_bytes(largest)})")
    return found


def spread(models: Iterable[SimulatedModel], fleet: Fleet) -> list[SimulatedModel]:
    """What is larger than each device is spread over the fewest equal GPUs that hold it: 2, 4, 8 or 16.

    Raises ``BadInput`` for what is said to be on several GPUs and cannot be.
    """
    equal = equal_gpus(fleet)
    most, largest = max(equal.values(), default=0), max(device.budget_bytes for device in fleet.devices)
    found = []
    for model in models:
        ranks, name = model.tensor_parallel, printable(model.name)
        if ranks == 1 and model.bytes > largest and model.device is None:
            wider = (replace(model, tensor_parallel=number) for number in (2, 4, 8, 16))
            model = next((one for one in wider if _has_room(one, equal)), model)
        elif ranks > 1 and model.device is not None:
            raise BadInput(f"{name} is to be on {model.device} and on {ranks} GPUs; leave device or tensor_parallel out")
        elif ranks > 1 and ranks > most:
            raise BadInput(f"{name} is to be on {ranks} equal GPUs, and there are {most} ({in_words(fleet)})")
        elif ranks > 1 and model.bytes_each < SMALLEST_PART:
            least = human_bytes(SMALLEST_PART * ranks)
            raise BadInput(f"{name} is to be on {ranks} GPUs, and is smaller than an engine on so many ({least})")
        found.append(model)
    return found


def _has_room(model: SimulatedModel, equal: Mapping[int, int]) -> bool:
    return any(model.bytes_each <= size and model.tensor_parallel <= count for size, count in equal.items())


def largest_made(fleet: Fleet) -> int:
    """Of the models that are made up for this fleet, where nobody says another size."""
    largest = max(device.budget_bytes for device in fleet.devices)
    return max((size for size in _SIZES if size <= largest), default=largest // 2)


def parse_made(text: str) -> int:
    """``made:16GiB``: made up, the largest of so many bytes. Raises ``BadInput``."""
    said = text.removeprefix(MADE)
    try:
        size = parse_bytes(said) if not lacks_unit(said) else None
    except ValueError:
        size = None
    if not isinstance(size, int) or size < SMALLEST_DEVICE // 4:
        raise BadInput(f"--models {text!r}: how large is the largest that is made up? As {MADE}16GiB")
    return size


def plausible_models(names: Iterable[str], largest: int, *, seed: int) -> tuple[SimulatedModel, ...]:
    """Models of sizes that are common, none larger than ``largest``; the same for a seed. A load takes 3 s, and 1 s for
    each 2 GiB."""
    sizes = [size for size in _SIZES if size <= largest] or [largest // 4, largest // 2, largest]
    chance = random.Random(seed)
    made = []
    for name in names:
        size = chance.choice(sizes)
        made.append(SimulatedModel(name=name, bytes=size, load_seconds=plausible_load_s(size)))
    return tuple(made)


def plausible_load_s(size: int) -> float:
    """Of a model of so many bytes that was never loaded."""
    return round(_FIRST_S + size / _BYTES_A_SECOND, 1)


def of_the_trace(names: Sequence[str], models: Iterable[SimulatedModel]) -> tuple[list[SimulatedModel], frozenset[int]]:
    """The models in the order of ``names``, then those that nobody asks, and the indices of names without a model."""
    known: Mapping[str, SimulatedModel] = {model.name: model for model in models}
    asked = set(names)
    unknown = frozenset(index for index, name in enumerate(names) if name not in known)
    stand_in = SimulatedModel(name="", bytes=1, load_seconds=0.0)
    ordered = [known.get(name, stand_in) for name in names]
    return [*ordered, *(model for name, model in known.items() if name not in asked)], unknown
