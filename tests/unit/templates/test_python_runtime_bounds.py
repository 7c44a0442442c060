"""What one request may bring to the python runtime: parameters, templates, pictures and sounds, each within bounds."""

from __future__ import annotations

import importlib
import io
import json
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modelium.resources import templates_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    contract: ModuleType
    pictures: ModuleType
    resampling: ModuleType
    sampling: ModuleType
    templates: ModuleType


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    """Its modules as Triton's stub imports them: in the package that is named after the version."""
    directory = str(templates_directory() / "python")
    sys.path.insert(0, directory)
    yield Template(**{name: importlib.import_module(f"1.{name}") for name in Template.__slots__})
    sys.path.remove(directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    top_k: int | None = None
    threshold: float | None = None
    words: tuple[str, ...] = ()
    name: str | None = None


@pytest.mark.parametrize(
    "raw",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"top_k": ' + b"9" * 10_000 + b"}", b" " * (2 << 20), b'{"top_k": 1e999999}\xff'],
    ids=["lists", "objects", "digits", "spaces", "bytes"],
)
def test_parameters_that_no_parser_takes_are_their_senders_fault(template: Template, raw: bytes) -> None:
    with pytest.raises(template.contract.BadInput, match="PARAMETERS"):
        template.contract.parse_json(raw)


@pytest.mark.parametrize(
    "sent",
    [
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"threshold": 10**400},
        {"top_k": 2**64},
        {"words": ["a"] * 2000},
        {"words": ["a" * 2000]},
        {"name": "a" * 20_000},
        {"a" * 1_000_000: 1},
        {"top_k": "a" * 1_000_000},
    ],
    ids=lambda sent: next(iter(sent))[:10],
)
def test_a_wrong_parameter_is_named_in_a_few_words(template: Template, sent: dict[str, object]) -> None:
    with pytest.raises(template.contract.BadInput) as caught:
        template.contract.parse_parameters(Parameters, sent)
    assert len(str(caught.value)) < 400


@given(
    sent=st.dictionaries(
        st.sampled_from(["top_k", "threshold", "words", "name"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_parameters_are_finite_or_a_fault(template: Template, sent: dict[str, object]) -> None:
    try:
        read = template.contract.parse_parameters(Parameters, sent)
    except template.contract.BadInput:
        return
    assert all(value is None or np.isfinite(value) for value in (read.top_k, read.threshold))


def test_long_texts_and_long_lists_are_refused(template: Template) -> None:
    contract = template.contract
    row = contract.Row(
        inputs={"TEXT": (b"a" * 1_000_001,), "LABELS": (b"a",) * 1001, "WIDE": ("é".encode() * 1_000_000,)},
        parameters={},
        is_cancelled=bool,
    )
    with pytest.raises(contract.BadInput, match="1000001 characters long"):
        row.text("TEXT")
    with pytest.raises(contract.BadInput, match="1001 values"):
        row.texts("LABELS")
    assert len(row.text("WIDE")) == 1_000_000


def test_a_template_takes_the_label_at_its_place(template: Template) -> None:
    fill = template.templates.fill
    assert fill("This is about {}.", "music") == "This is about music."
    assert fill("{label}!", "{0.__class__}") == "{0.__class__}!"


@pytest.mark.parametrize(
    "text", ["", "no place", "{} and {}", "{0}", "{0.__class__.__init__.__globals__}", "{:>2000000000}", "{!r}", "{}}", "{{}}"]
)
def test_a_template_is_no_format_string(template: Template, text: str) -> None:
    with pytest.raises(template.contract.BadInput, match="hypothesis_template"):
        template.templates.fill(text, "music")


@pytest.mark.parametrize(
    "sent",
    [
        {"num_beams": 200_000},
        {"num_return_sequences": 200, "do_sample": True},
        {"max_new_tokens": 2**40},
        {"temperature": -1.0},
        {"temperature": 1e200},
        {"repetition_penalty": 1e9},
        {"top_k": 0},
        {"top_p": 0.0},
        {"seed": -1},
        {"length_penalty": 1e6},
        {"min_length": -1},
        {"stop": ("x",) * 100},
        {"stop": ("x" * 1000,)},
        {"num_beams": 2, "num_return_sequences": 3, "do_sample": True},
    ],
    ids=lambda sent: "-".join(sent),
)
def test_what_generation_cannot_use_is_refused(template: Template, sent: dict[str, object]) -> None:
    with pytest.raises(template.contract.BadInput, match=next(reversed(sent)) if len(sent) == 1 else "num_return_sequences"):
        template.sampling.check(replace(template.sampling.TransformParameters(), **sent))


def test_beams_are_bounded_with_the_length_of_what_they_write(template: Template) -> None:
    sampling = template.sampling
    sampling.check_places(sampling.GenerateParameters(), 500_000)  # one sequence may be as long as the context
    sampling.check_places(sampling.GenerateParameters(num_beams=16), 4096)
    with pytest.raises(template.contract.BadInput, match="16 sequences of 4097 tokens"):
        sampling.check_places(sampling.GenerateParameters(num_beams=16), 4097)


def test_a_temperature_of_nearly_nothing_makes_no_infinities(template: Template) -> None:
    sampling = template.sampling
    assert sampling.sampling(sampling.GenerateParameters(temperature=1e-30))["temperature"] == 0.01
    assert not sampling.sampling(sampling.GenerateParameters(temperature=0.0))["do_sample"]


@pytest.mark.parametrize("rate", [1_000, 8_000, 8_009, 11_025, 15_999, 16_000, 44_100, 47_999, 48_000, 383_987])
def test_a_tone_is_the_same_tone_at_another_rate(template: Template, rate: int) -> None:
    """However the rates divide, in one block or many."""
    tone = np.sin(2 * np.pi * 300 * np.arange(rate) / rate).astype(np.float32)
    blocks = [tone[start : start + 997] for start in range(0, rate, 997)]
    found = template.resampling.resample(blocks, rate, 16_000)
    assert len(found) == 16_000
    expected = np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    assert np.abs(found - expected)[1_000:-1_000].max() < 1e-5
    assert np.allclose(found, template.resampling.resample([tone], rate, 16_000), atol=1e-6)


@pytest.mark.parametrize("rate", [8_009, 47_999, 383_987])
def test_no_rate_costs_gigabytes(template: Template, rate: int) -> None:
    tracemalloc.start()
    template.resampling.resample([np.zeros(16, dtype=np.float32)], rate, 16_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20  # it was 5.9 GiB


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    target = io.BytesIO()
    picture.save(target, format=form, **options)
    return target.getvalue()


def test_a_picture_stands_upright(template: Template) -> None:
    lying = Image.new("RGB", (40, 20), "blue")
    lying.paste("red", (0, 0, 10, 20))  # red at its left: on top, once it is turned
    exif = Image.Exif()
    exif[0x0112] = 6
    found = template.pictures.read_image(encoded(lying, "PNG", exif=exif))
    assert found.size == (20, 40)
    assert found.getpixel((10, 5)) == (255, 0, 0)
    broken = template.pictures.read_image(encoded(lying, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"))
    assert broken.size == (40, 20)


LOSSLESS: dict[str, dict[str, object]] = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "PPM": {},
}


@pytest.mark.parametrize("form", LOSSLESS)
def test_every_lossless_format_gives_the_same_pixels(template: Template, form: str) -> None:
    picture = Image.new("RGB", (24, 16), "blue")
    picture.paste("red", (3, 2, 12, 9))
    found = template.pictures.read_image(encoded(picture, form, **LOSSLESS[form]))
    assert (found.mode, found.tobytes()) == ("RGB", picture.tobytes())


@pytest.mark.parametrize("form", ["JPEG", "MPO", "WEBP", "AVIF"])
def test_every_lossy_format_is_read(template: Template, form: str) -> None:
    """MPO: a JPEG with a second view behind it, as telephones make them."""
    picture = Image.new("RGB", (32, 32), (30, 120, 200))
    more: dict[str, object] = {"save_all": True, "append_images": [picture]} if form == "MPO" else {}
    found = template.pictures.read_image(encoded(picture, form, **more))
    assert found.size == (32, 32)
    assert np.abs(np.asarray(found, dtype=int) - np.asarray(picture, dtype=int)).max() <= 6


def test_what_is_no_documented_picture_is_refused_with_that(template: Template) -> None:
    for data in (b"no picture at all", encoded(Image.new("RGB", (4, 4)), "ICO"), encoded(Image.new("RGB", (4, 4)), "EPS")):
        with pytest.raises(template.contract.BadInput, match="cannot identify image file"):
            template.pictures.read_image(data)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_shows_through_is_white(template: Template, mode: str) -> None:
    """As people see it and as vLLM has it: whatever colour lies under full transparency is not looked at."""
    if mode == "P":
        picture = Image.new("P", (4, 4), 1)
        picture.putpalette([255, 0, 0, 0, 0, 0])
        picture.putpixel((0, 0), 0)
        data = encoded(picture, transparency=1)
        expected = (255, 0, 0)
    else:
        picture = Image.new(mode, (4, 4), (0,) * len(Image.new(mode, (1, 1)).getbands()))
        picture.putpixel((0, 0), (90, 90, 90, 255) if mode == "RGBA" else (90, 255))
        data, expected = encoded(picture), (90, 90, 90)
    found = template.pictures.read_image(data)
    assert found.mode == "RGB"
    assert (found.getpixel((0, 0)), found.getpixel((3, 3))) == (expected, (255, 255, 255))


def test_sixteen_bits_are_not_cut_off_at_white(template: Template) -> None:
    grey = Image.fromarray(np.full((4, 4), 128 * 257, dtype=np.uint16))
    assert template.pictures.read_image(encoded(grey)).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("size", "words"), [((9000, 9000), "81,000,000 pixels"), ((1, 60_000), "one side may be 200 times the other")]
)
def test_bombs_are_refused_before_they_are_decoded(template: Template, size: tuple[int, int], words: str) -> None:
    data = encoded(Image.new("1", size))
    with pytest.raises(template.contract.BadInput, match=words):
        template.pictures.read_image(data)


def test_the_pictures_of_a_row_are_bounded_together(template: Template) -> None:
    large = encoded(Image.new("1", (8000, 8000)))
    with pytest.raises(template.contract.BadInput, match=r"64,000,000 pixels, at most 6,217,728"):
        template.pictures.read_images([large, large, large])
    with pytest.raises(template.contract.BadInput, match="65 pictures"):
        template.pictures.read_images([b""] * 65)


@given(
    data=st.binary(max_size=60),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"BM", b"\xff\xd8\xff\xe1"]),
)
def test_any_bytes_are_a_picture_or_a_fault(template: Template, head: bytes, data: bytes) -> None:
    try:
        assert template.pictures.read_image(head + data).mode == "RGB"
    except template.contract.BadInput as error:
        assert "IMAGE" in str(error)


def test_json_of_the_gateway_is_what_the_runtime_reads(template: Template) -> None:
    raw = json.dumps({"top_k": 3, "threshold": 0.5}).encode()
    assert template.contract.parse_parameters(Parameters, template.contract.parse_json(raw)).top_k == 3
