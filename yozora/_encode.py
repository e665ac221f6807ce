"""Frames into files: one encoder a format, each fed frame by frame, none of them growing with the length.

The same frames give the same bytes: thread counts are fixed and no dates or library versions are written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from yozora import _containers, _pictures

if TYPE_CHECKING:
    import av

ENDINGS = (".mp4", ".gif", ".webp", ".png", ".jpg", ".jpeg")
_MOST_GIF_FPS = 50.0
# x264 gives other bytes once in a while with more threads, and with its macroblock tree, which reads memory that it
# has not written (MALLOC_PERTURB_ shows it)
_X264 = {"preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
# Frames of the sizes that are made come back as they were to the eye and to what is made from the file next: a loop's
# seam does not grow, an extension's given frames stay. Larger ones are as near with less: a pixel there is little.
_CRF, _CRF_LARGE, _LARGE = "6", "17", 2**18
_BT709 = 1
# H.264's colour samples stand at the left of their pixels, which every player assumes, and FFmpeg's conversion does not
# unless it is told: without that each writing shifts colours by a quarter of a pixel
_TO_YUV = (
    "flags=lanczos+accurate_rnd+full_chroma_inp+bitexact:out_color_matrix=bt709:out_range=tv:"
    "out_h_chr_pos=0:out_v_chr_pos=128"
)


class Encoder(Protocol):
    """Writes one file. `finish` completes it; `abort` only lets go of it."""

    def add(self, frame: np.ndarray) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...


def open_encoder(ending: str, path: Path, size: tuple[int, int], fps: float, label: str) -> Encoder:
    """The encoder for a file ending, writing to `path`, whatever that is called. `label` is ASCII, or empty."""
    if ending == ".mp4":
        return _Mp4(path, size, fps, label)
    if ending == ".webp":
        return _Webp(path, size, fps, label)
    return _Spooled(path, size, fps, label, ending)


class _Mp4:
    """H.264 in yuv420p with its index in front, which every player and browser takes."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float, label: str) -> None:
        import av

        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(f"file:{path}", "w", format="mp4", options=options)
        if label:
            self._container.metadata["comment"] = label
        rate = Fraction(fps).limit_denominator(1001)  # finds 30000/1001
        width, height = (edge + edge % 2 for edge in size)
        options = {"crf": _CRF if width * height <= _LARGE else _CRF_LARGE} | _X264
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = 1  # limited
        self._rate, self._count = rate, 0
        self._graph = _graph((width, height), rate, _TO_YUV, "yuv420p")

    def add(self, frame: np.ndarray) -> None:
        """Encode one frame; an odd edge is repeated once, because 4:2:0 halves both sides."""
        import av

        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._graph.push(_timed(picture, self._count, self._rate))
        self._count += 1
        self._container.mux(self._stream.encode(cast("av.VideoFrame", self._graph.pull())))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abort(self) -> None:
        self._container.close()


class _Webp:
    """An animated WebP, or a still one if there is a single frame. FFmpeg's own animation encoder would merge frames
    that are alike and so change their number; each frame is encoded whole instead."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float, label: str) -> None:
        self._file = path.open("wb")
        self._size, self._fps, self._label = size, fps, label
        self._count, self._first = 0, b""

    def add(self, frame: np.ndarray) -> None:
        image = _encode_picture(frame, "libwebp", "bgra", {"quality": "90"})
        if self._count == 0:
            self._first = image
        if self._count == 1:
            loop_forever = _containers.webp_chunk(b"ANIM", b"\xff\xff\xff\xff\0\0")
            self._file.write(_containers.riff(_containers.webp_header(*self._size) + loop_forever))
            self._write_frame(self._first, 0)
        if self._count >= 1:
            self._write_frame(image, self._count)
        self._count += 1

    def _write_frame(self, image: bytes, index: int) -> None:
        milliseconds = round(1000 * (index + 1) / self._fps) - round(1000 * index / self._fps)
        self._file.write(_containers.webp_animation_frame(image, *self._size, milliseconds))

    def finish(self) -> None:
        if self._count == 1:
            labelled = _containers.labelled_webp(self._first, *self._size, self._label)
            self._file.write(labelled if self._label else self._first)
        else:
            self._file.write(_containers.webp_label(self._label) if self._label else b"")
            length = self._file.tell()
            self._file.seek(4)
            self._file.write((length - 8).to_bytes(4, "little"))
        self._file.close()

    def abort(self) -> None:
        self._file.close()


class _Spooled:
    """GIF, PNG and JPEG, which need all frames before the first byte: they wait in a nameless file, not in memory."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float, label: str, ending: str) -> None:
        self._path, self._size, self._fps, self._label, self._ending = path, size, fps, label, ending
        self._spool = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by finish and abort
        self._count = 0

    def add(self, frame: np.ndarray) -> None:
        self._spool.write(np.ascontiguousarray(frame).data)
        self._count += 1

    def _frame(self, index: int) -> np.ndarray:
        width, height = self._size
        length = width * height * 3
        self._spool.seek(index * length)
        return np.frombuffer(self._spool.read(length), np.uint8).reshape(height, width, 3)

    def finish(self) -> None:
        if self._ending == ".gif":
            self._write_gif()
        else:
            self._path.write_bytes(self._picture())
        self._spool.close()

    def abort(self) -> None:
        self._spool.close()

    def _picture(self) -> bytes:
        frames = [self._frame(index) for index in _pictures.spread(self._count, _pictures.SHEET_FRAMES)]
        picture = frames[0] if len(frames) == 1 else _pictures.contact_sheet(np.stack(frames))
        if self._ending == ".png":
            image = _encode_picture(picture, "png", "rgb24", {"pred": "mixed"})
            return _containers.labelled_png(image, self._label) if self._label else image
        options = {"qmin": "1", "qmax": "3", "flags": "+bitexact", "huffman": "optimal"}
        image = _encode_picture(picture, "mjpeg", "yuvj444p", options)
        return _containers.labelled_jpeg(image, self._label) if self._label else image

    def _write_gif(self) -> None:
        import av

        fps = min(self._fps, _MOST_GIF_FPS)
        count = max(1, round(self._count * fps / self._fps))
        rate = Fraction(fps).limit_denominator(1001)

        def frames() -> Iterator[av.VideoFrame]:
            for index in range(count):
                pixels = self._frame(min(round(index * self._fps / fps), self._count - 1))
                yield _timed(av.VideoFrame.from_ndarray(pixels, format="rgb24"), index, rate)

        with av.open(f"file:{self._path}", "w", format="gif", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("gif", rate=rate)
            stream.width, stream.height = self._size
            stream.pix_fmt = "pal8"
            stream.codec_context.time_base = 1 / rate
            for picture in _paletted(frames, self._size, rate):
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        with self._path.open("r+b") as file:  # the comment goes before the trailer
            file.seek(-1, 2)
            file.write((_containers.gif_label(self._label) if self._label else b"") + b";")


def _graph(size: tuple[int, int], rate: Fraction, scale: str, pixel_format: str) -> Any:
    """From rgb24 to another format by FFmpeg's scaler: frames are pushed in and pulled out."""
    from av.filter import Graph
    from av.video.format import VideoFormat

    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=size[0], height=size[1], format=VideoFormat("rgb24"), time_base=1 / rate),
        graph.add("scale", scale),
        graph.add("format", pixel_format),
        graph.add("buffersink"),
    ).configure()
    return graph


def _paletted(frames: Any, size: tuple[int, int], rate: Fraction) -> Iterator[av.VideoFrame]:
    """Two passes over `frames()`: the 256 colours that suit them best, then each frame dithered into these."""
    from av.filter import Graph
    from av.video.format import VideoFormat

    def source(graph: Graph, width: int, height: int, pixel_format: str) -> Any:
        return graph.add_buffer(width=width, height=height, format=VideoFormat(pixel_format), time_base=1 / rate)

    graph = Graph()
    graph.link_nodes(source(graph, *size, "rgb24"), graph.add("palettegen"), graph.add("buffersink")).configure()
    palettes: list[av.VideoFrame] = []
    for frame in chain(frames(), (None,)):
        graph.push(frame)
        palettes += _pulled(graph)  # empty until the end, but pulling is what makes the graph take its input

    graph = Graph()
    pictures, colours = source(graph, *size, "rgb24"), source(graph, 16, 16, "bgra")
    use, sink = graph.add("paletteuse", "dither=sierra2_4a:diff_mode=rectangle"), graph.add("buffersink")
    pictures.link_to(use, 0, 0)
    colours.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    colours.push(_timed(palettes[0], 0, rate))
    colours.push(None)
    for frame in chain(frames(), (None,)):
        pictures.push(frame)
        yield from _pulled(sink)


def _pulled(outlet: Any) -> Iterator[av.VideoFrame]:
    from av.error import BlockingIOError, EOFError

    while True:
        try:
            yield outlet.pull()
        except (BlockingIOError, EOFError):
            return


def _timed(frame: Any, index: int, rate: Fraction) -> Any:
    frame.pts, frame.time_base = index, 1 / rate
    return frame


def _encode_picture(pixels: np.ndarray, codec: str, pixel_format: str, options: dict[str, str]) -> bytes:
    """uint8 `[H, W, 3]` → the bytes of one encoded picture."""
    import av

    context = cast("av.VideoCodecContext", av.CodecContext.create(codec, "w"))
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt, context.time_base, context.options = pixel_format, Fraction(1, 25), options
    context.thread_count = 1
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=pixel_format)
    picture.pts = 0
    return b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))
