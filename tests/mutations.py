"""Seeded damage to files: blind (bits, runs, lengths, chunks) and knowing (flatbuffers, protobuf, zip, HDF5, XML)."""

import io
import random
import re
import struct
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from edgecnn import registry
from edgecnn.interfaces import Reader
from edgecnn.source import existing, format_of

Mutation = Callable[[bytearray, random.Random], None]
"""Damages the bytes in place."""

CHUNK_BYTES = 4096
HEAD_BYTES = 8192
"""Structure is dense at the beginning (HDF5, XML, protobuf's nodes) and at the end (zip, flatbuffers' tables)."""

EXTREMES = (0, 1, 0x7F, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HUGE_VARINT = b"\xff" * 9 + b"\x01"
ENTITIES = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]>'
)
UNREADABLE = (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError, struct.error)
NUMBERS = (b"-1", b"0", b"2147483648", b"9223372036854775808", b"1e308", b"nan", b"9" * 5000, b"3,4", b"?")


def mutated(data: bytes, suffix: str, seed: int) -> bytes:
    """Return a damaged copy: one to three mutations, of which about half know the format."""
    rng = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice((rng.choice(BLIND), rng.choice(KNOWING[suffix])))(damaged, rng)
    return bytes(damaged)


def place(data: bytearray, rng: random.Random, width: int = 1) -> int:
    """Return where to damage: near the beginning or the end two times of three."""
    last = max(0, len(data) - width)
    near = min(last, HEAD_BYTES)
    return rng.choice((rng.randint(0, near), last - rng.randint(0, near), rng.randint(0, last)))


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[place(data, rng) :]


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 8, 64))):
        if data:
            data[place(data, rng)] ^= 1 << rng.randrange(8)


def replace_run(data: bytearray, rng: random.Random) -> None:
    start, length = place(data, rng), rng.choice((1, 4, 16, 256))
    data[start : start + length] = rng.randbytes(length)


def zero_run(data: bytearray, rng: random.Random) -> None:
    start, length = place(data, rng), rng.choice((4, 64, CHUNK_BYTES))
    data[start : start + length] = bytes(len(data[start : start + length]))


def set_extreme(data: bytearray, rng: random.Random) -> None:
    """Write an extreme number over an aligned one, as lengths, offsets and sizes are."""
    start = place(data, rng, 8) & ~3
    number = struct.pack(rng.choice(("<I", ">I", "<Q")), rng.choice(EXTREMES))
    data[start : start + len(number)] = number


def swap_chunks(data: bytearray, rng: random.Random) -> None:
    length = rng.choice((4, 64, CHUNK_BYTES))
    a, b = sorted((place(data, rng, length), place(data, rng, length)))
    if b - a >= length:
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]


def duplicate_chunk(data: bytearray, rng: random.Random) -> None:
    start = place(data, rng)
    data[start:start] = data[start : start + rng.choice((4, 64, CHUNK_BYTES))]


def point_offset(data: bytearray, rng: random.Random) -> None:
    """Turn a 32-bit offset of a flatbuffer to itself, backwards, or to another table's place."""
    start = place(data, rng, 4) & ~3
    target = rng.choice((0, 4, -4, -start, place(data, rng) - start))
    data[start : start + 4] = struct.pack("<i", target)


def point_root(data: bytearray, rng: random.Random) -> None:
    """Let the root of a flatbuffer lie anywhere."""
    data[:4] = struct.pack("<I", rng.choice((0, 4, place(data, rng), 0x7FFFFFFF)))


def enlarge_varint(data: bytearray, rng: random.Random) -> None:
    """Replace a byte of a protobuf message by a huge varint: a length, a size, a field number."""
    start = place(data, rng)
    data[start : start + 1] = rng.choice((HUGE_VARINT, b"\xff\xff\xff\xff\x07", b"\xff\x7f"))


def nest_messages(data: bytearray, rng: random.Random) -> None:
    """Insert groups or length-delimited fields within each other, deeper than any reader should follow."""
    start = place(data, rng)
    data[start:start] = rng.choice((b"\x0b", b"\x3a\x7f", b"\x32\xff\x01")) * rng.choice((8, 500, 20_000))


def damage_record(signature: bytes) -> Mutation:
    """Return a mutation of the bytes behind one of a format's signatures, such as the header of a zip member."""

    def damage(data: bytearray, rng: random.Random) -> None:
        found = [match.start() for match in re.finditer(re.escape(signature), data)]
        if found:
            start = rng.choice(found) + len(signature) + rng.randrange(42)
            number = struct.pack("<I", rng.choice(EXTREMES))[: rng.choice((1, 2, 4))]
            data[start : start + len(number)] = number

    return damage


def set_number(data: bytearray, rng: random.Random) -> None:
    """Replace a number in text (XML, JSON) by an impossible one."""
    found = [match.span() for match in re.finditer(rb"\d+", data[:1_000_000])]
    if found:
        start, end = rng.choice(found)
        data[start:end] = rng.choice(NUMBERS)


def set_word(data: bytearray, rng: random.Random) -> None:
    """Let one quoted word stand for another: names, types and references of XML and JSON."""
    found = [match.span(1) for match in re.finditer(rb'"([^"<>{}]{1,60})"', data[:1_000_000])]
    if found:
        (start, end), (first, last) = rng.choice(found), rng.choice(found)
        data[start:end] = bytes(data[first:last])


def nest_text(data: bytearray, rng: random.Random) -> None:
    start = data.find(rng.choice((b"<layer", b"<data", b"{", b"[")), rng.randrange(max(1, len(data))))
    data[max(start, 0) : max(start, 0)] = rng.choice((b"<a>", b"[", b'{"a":')) * rng.choice((50, 3000, 200_000))


def add_entities(data: bytearray, rng: random.Random) -> None:
    end = data.find(b"?>") + 2
    data[end:end] = ENTITIES
    start = data.find(b'"', len(ENTITIES) + end) + 1
    data[start:start] = b"&c;"


def damage_member(data: bytearray, rng: random.Random) -> None:
    """Damage what is inside a zip archive and pack it again, so that the checksums hold."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    except UNREADABLE:
        return  # an earlier mutation saw to that
    if not members:
        return
    name = rng.choice(sorted(members))
    rng.choice((*BLIND, *(HDF5 if name.endswith(".h5") else TEXT)))(members[name], rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, content in members.items():
            archive.writestr(zipfile.ZipInfo(each), bytes(content))
    data[:] = packed.getvalue()


BLIND: tuple[Mutation, ...] = (truncate, flip_bits, replace_run, zero_run, set_extreme, swap_chunks, duplicate_chunk)
TEXT: tuple[Mutation, ...] = (set_number, set_word, nest_text)
HDF5: tuple[Mutation, ...] = tuple(
    map(damage_record, (b"\x89HDF\r\n\x1a\n", b"TREE", b"SNOD", b"HEAP", b"OHDR", b"GCOL", b"FRHP", b"BTHD"))
)
ZIP: tuple[Mutation, ...] = tuple(map(damage_record, (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06")))
KNOWING: dict[str, tuple[Mutation, ...]] = {
    ".tflite": (point_offset, point_root, set_extreme),
    ".onnx": (enlarge_varint, nest_messages),
    ".h5": (*HDF5, *TEXT),
    ".keras": (*ZIP, damage_member, damage_member, damage_member, damage_member),
    ".xml": (*TEXT, add_entities),
}
"""Suffix -> mutations that know what such files are made of."""


# --- what the child of a fuzz test does ------------------------------------------------------------------------------


def read_mutated(source: str, seed: int, folder: str) -> bool:
    """Damage a copy of a file and read it; return whether that gave a Graph (or, of what is not read, a contract)."""
    original = Path(source)
    path = Path(folder) / f"mutated{original.suffix}"
    path.write_bytes(mutated(original.read_bytes(), original.suffix, seed))
    if original.suffix == ".xml":
        constants = original.with_suffix(".bin").read_bytes()
        path.with_suffix(".bin").write_bytes(constants if seed % 3 else constants[: seed % len(constants)])
    return read_file(str(path))


def read_file(path: str) -> bool:
    """Read a file with everything in this process, HDF5 included, so that an exception of our own is seen."""
    form = format_of(existing(Path(path)))
    if form.name == "keras":
        import_module("edgecnn.converters.keras_file")._graph.__wrapped__(Path(path))
        return True
    if isinstance(form, Reader):
        form.read(Path(path))
        return True
    return form.read_contract(Path(path)) is not None


def readers() -> tuple[str, ...]:
    """Return the names of the formats that can be read."""
    return tuple(n for n in registry.entries("converters") if isinstance(registry.load("converters", n), Reader))
