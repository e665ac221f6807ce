"""What FFmpeg leaves out for pictures and animations: their text, durations, orientation, whether they are whole.

PNG, JPEG, GIF and WebP are short lists of labelled blocks, read and extended here by hand. A label is plain ASCII text
(Yozora writes a recipe as JSON): a `Comment` in PNG, JPEG and GIF, the XMP description in WebP.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape, unescape
from typing import Protocol

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FASTEST_GIF_DELAY = 2  # hundredths of a second; browsers and FFmpeg show anything faster at 10
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
    '<rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>'
)
_JPEG_FRAMES = {*range(0xFFC0, 0xFFD0)} - {0xFFC4, 0xFFC8, 0xFFCC}  # the headers that begin a picture of any kind
_XMP_DESCRIPTION = re.compile(r"<dc:description>.*?<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL)


class Data(Protocol):
    """The bytes of a file: `bytes` or an `mmap`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...
    def rfind(self, sub: bytes, start: int, /) -> int: ...


@dataclass(frozen=True)
class Contents:
    """What a picture or animation file says about itself."""

    kind: str
    """png, jpeg, gif or webp."""
    label: str = ""
    durations: tuple[float, ...] = ()
    """Seconds that each frame of an animation is shown; empty for a picture."""
    size: tuple[int, int] = (0, 0)
    """Width and height in pixels as stored, or zeros where the header does not say."""
    orientation: int = 1
    """How EXIF says that it is to be shown, 1 (as stored) to 8."""
    needless: tuple[int, int] = (0, 0)
    """From where to where are bytes that FFmpeg does not need and may refuse the file for."""


@dataclass(frozen=True)
class WebpFrame:
    """One frame of an animated WebP: a still WebP file and where on the canvas it goes."""

    image: bytes
    left: int
    top: int
    width: int
    height: int
    duration: float
    blend: bool
    clear_after: bool


def inspect(data: Data) -> Contents | None:
    """The contents of a PNG, JPEG, GIF or WebP file; None for any other kind. Raises EOFError if it is cut off."""
    if data[:8] == _PNG_SIGNATURE:
        return _inspect_png(data)
    if data[:3] == b"\xff\xd8\xff":
        return _inspect_jpeg(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _inspect_gif(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _inspect_webp(data)
    return None


def take(data: Data, start: int, count: int) -> bytes:
    """Exactly `count` bytes from `start`, or EOFError."""
    found = data[start : start + count]
    if len(found) < count:
        raise EOFError
    return found


def _inspect_png(data: Data) -> Contents:
    position, label, durations, orientation, exif = 8, "", [], 1, (0, 0)
    width, height = struct.unpack(">II", take(data, 16, 8))
    while True:
        size, kind = struct.unpack(">I4s", take(data, position, 8))
        take(data, position + 8 + size, 4)  # the checksum closes the chunk
        if kind == b"IEND":
            return Contents("png", label, tuple(durations), (width, height), orientation, exif)
        if kind == b"eXIf":
            orientation = exif_orientation(take(data, position + 8, size))
            exif = (position, position + size + 12)
        if kind == b"tEXt":
            keyword, _, text = take(data, position + 8, size).partition(b"\0")
            label = text.decode("latin-1") if keyword == b"Comment" else label
        if kind == b"fcTL":
            numerator, denominator = struct.unpack(">HH", take(data, position + 28, 4))
            durations.append(numerator / (denominator or 100))
        position += size + 12


def _inspect_jpeg(data: Data) -> Contents:
    position, label, width, height, orientation = 2, b"", 0, 0, 1
    while True:
        marker, size = struct.unpack(">HH", take(data, position, 4))
        if marker == 0xFFFE:
            label += take(data, position + 4, size - 2)
        if marker == 0xFFE1 and take(data, position + 4, 6) == b"Exif\0\0":
            orientation = exif_orientation(take(data, position + 4, size - 2))
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", take(data, position + 5, 4))
        if marker == 0xFFDA:  # the picture itself follows, up to the end marker
            if data.rfind(b"\xff\xd9", position) < 0:
                raise EOFError
            return Contents("jpeg", label.decode("latin-1"), (), (width, height), orientation)
        position += 2 + max(size, 2)


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in a block of EXIF (tag 0x112 of its first directory); 1 where it says none."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4], "")
    if not order:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 0x112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:  # cut short: the picture itself may be fine
        pass
    return 1


def _inspect_gif(data: Data) -> Contents:
    position, label, durations, delay = 13 + _palette_size(take(data, 10, 1)[0]), b"", [], 0
    while position < len(data):  # the trailer is often forgotten, so a file may also end between two blocks
        kind = take(data, position, 1)
        if kind == b";":
            break
        if kind == b"!":
            extension, body = take(data, position + 1, 1), position + 2
            blocks = list(_gif_blocks(data, body))
            if extension == b"\xf9":
                delay = int.from_bytes(blocks[0][1:3], "little")
            if extension == b"\xfe":
                label += b"".join(blocks)
            position = body + sum(len(block) + 1 for block in blocks) + 1
        elif kind == b",":
            body = position + 11 + _palette_size(take(data, position + 9, 1)[0])
            position = body + sum(len(block) + 1 for block in _gif_blocks(data, body)) + 1
            durations.append((delay if delay >= _FASTEST_GIF_DELAY else 10) / 100)
        else:
            raise EOFError
    return Contents("gif", label.decode("latin-1"), tuple(durations), struct.unpack("<HH", data[6:10]))


def _palette_size(flags: int) -> int:
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _gif_blocks(data: Data, position: int) -> Iterator[bytes]:
    while size := take(data, position, 1)[0]:
        yield take(data, position + 1, size)
        position += size + 1


def _inspect_webp(data: Data) -> Contents:
    label, durations, size, orientation = "", [], (0, 0), 1
    for kind, body in _webp_chunks(data, 12, 8 + struct.unpack("<I", take(data, 4, 4))[0]):
        size = max(size, _webp_chunk_size(kind, body))
        if kind == b"ANMF":
            durations.append(int.from_bytes(body[12:15], "little") / 1000)
        elif kind == b"EXIF":
            orientation = exif_orientation(body)
        elif kind == b"XMP ":
            found = _XMP_DESCRIPTION.search(body.decode("utf-8", "replace"))
            label = unescape(found[1]) if found else ""
    return Contents("webp", label, tuple(durations), size, orientation)


def _webp_chunk_size(kind: bytes, body: bytes) -> tuple[int, int]:
    """Width and height where this chunk tells them, else zeros."""
    if kind == b"VP8X" and len(body) >= 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return 0, 0


def _webp_chunks(data: Data, position: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while position + 8 <= end:
        kind, size = struct.unpack("<4sI", take(data, position, 8))
        yield kind, take(data, position + 8, size)
        position += 8 + size + size % 2


def webp_frames(data: Data) -> Iterator[WebpFrame]:
    """The frames of an animated WebP, each as a still WebP of its own (FFmpeg decodes those, but no animation)."""
    for kind, body in _webp_chunks(data, 12, len(data)):
        if kind != b"ANMF":
            continue
        left, top, width, height, duration = (int.from_bytes(body[at : at + 3], "little") for at in range(0, 15, 3))
        chunks = body[16:]
        if chunks[:4] == b"ALPH":
            chunks = webp_header(width + 1, height + 1, _WEBP_ALPHA) + chunks
        yield WebpFrame(
            image=riff(chunks),
            left=2 * left,
            top=2 * top,
            width=width + 1,
            height=height + 1,
            duration=duration / 1000,
            blend=not body[15] & 2,
            clear_after=bool(body[15] & 1),
        )


_WEBP_ANIMATION, _WEBP_XMP, _WEBP_ALPHA = 2, 4, 16


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    """A RIFF chunk, padded to an even length."""
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def riff(chunks: bytes) -> bytes:
    """A whole WebP file of these chunks."""
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def webp_header(width: int, height: int, flags: int = _WEBP_ANIMATION | _WEBP_XMP) -> bytes:
    """The VP8X chunk, which a WebP with text or animation begins with."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", struct.pack("<I", flags) + size)


def webp_animation_frame(image: bytes, width: int, height: int, milliseconds: int) -> bytes:
    """A still WebP file as one whole frame (`ANMF`) of an animation."""
    numbers = (0, 0, width - 1, height - 1, milliseconds)
    return webp_chunk(b"ANMF", b"".join(n.to_bytes(3, "little") for n in numbers) + b"\x02" + image[12:])


def webp_label(label: str) -> bytes:
    """The XMP chunk that carries `label`."""
    return webp_chunk(b"XMP ", _XMP.format(escape(label)).encode())


def labelled_webp(image: bytes, width: int, height: int, label: str) -> bytes:
    """A still WebP file with `label` in it."""
    return riff(webp_header(width, height, _WEBP_XMP) + image[12:] + webp_label(label))


def labelled_png(image: bytes, label: str) -> bytes:
    """A PNG file with `label` in it, right after the header where every reader sees it."""
    body = b"tEXtComment\0" + label.encode("ascii")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return image[:33] + chunk + image[33:]


def labelled_jpeg(image: bytes, label: str) -> bytes:
    """A JPEG file with `label` in it, in as many comments as it needs."""
    text, most = label.encode("ascii"), 65533
    parts = [text[start : start + most] for start in range(0, len(text), most)]
    return image[:2] + b"".join(struct.pack(">HH", 0xFFFE, len(part) + 2) + part for part in parts) + image[2:]


def gif_label(label: str) -> bytes:
    """The comment extension that carries `label`."""
    text = label.encode("ascii")
    parts = [text[start : start + 255] for start in range(0, len(text), 255)]
    return b"!\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
