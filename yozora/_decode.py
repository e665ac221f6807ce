"""Frames out of files: PyAV, and what it takes to make any file an upright clip of one size and one rate."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from yozora import _containers
from yozora.errors import MediaError

if TYPE_CHECKING:
    import av
    import av.filter
    from av.container import InputContainer

STILL_FPS = 1.0
_PICTURES = "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"
# A list of what may be opened, because FFmpeg also takes text for ANSI art and playlists for videos, and follows them.
_FORMATS = f"{_PICTURES},mov,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,apng,h264,hevc,obu,ivf,m4v,yuv4mpegpipe"
_RGBA = "gbrap"  # planar: FFmpeg 8 spoils the last columns of packed rgba where width % 16 is 1 to 4
# Lanczos, whole colour samples, exact rounding: FFmpeg's default is quick, and what is read, changed and written a few
# times with it loses its colours. A number, because older PyAV has names only for a part of these flags.
_FINE = 0x200 | 0x2000 | 0x4000 | 0x40000 | 0x80000
MOST_PIXELS = 2**27
_LONGEST_GAP = 60.0  # seconds; a longer jump between two frames is a broken clock, not a pause

_AS_STORED = (False, False, False)
_EXIF_TURNS = {
    orientation: (orientation > 4, orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8))
    for orientation in range(1, 9)
}

Turn = tuple[bool, bool, bool]  # swap rows and columns; then mirror left and right; then mirror top and bottom
Timed = tuple[float, float, np.ndarray]  # when a frame is shown, for how long (0 = unknown), its pixels [H, W, 3]


@dataclass(frozen=True)
class Source:
    """A file being read. `frames` gives uint8 `[H, W, 3]` one at a time and owns the open file until it is closed."""

    fps: float
    size: tuple[int, int]
    label: str
    seconds: float | None  # as the file says; None for a picture, and where it does not say
    frames: Generator[np.ndarray]


def open_source(path: Path) -> Source:
    """Open a video or picture and decode its first frame. Raises MediaError in one line for anything unreadable."""
    frames = _read(path)
    fps, label, seconds = next(frames)
    try:
        first = next(frames)
    except StopIteration:
        raise MediaError(f"{path} has no picture in it") from None
    return Source(fps, (first.shape[1], first.shape[0]), label, seconds, _prepend(first, frames))


def _prepend(first: np.ndarray, rest: Generator[Any]) -> Generator[np.ndarray]:
    with contextlib.closing(rest):
        yield first
        yield from rest


def _read(path: Path) -> Generator[Any]:
    """First `(fps, label, seconds)`, then the frames: one generator, so that closing it closes everything."""
    import av
    from av.error import FFmpegError

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open(path))
        try:
            data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            contents = _containers.inspect(data)
            if contents:
                _check_size(*contents.size, path)  # FFmpeg decodes a picture when it is opened: too late to ask
            if contents and contents.kind == "webp" and contents.durations:
                fps, label, timed = _rate(contents.durations, 0.001), contents.label, _webp_frames(data, contents, path)
                seconds: float | None = sum(contents.durations)
            else:
                container = stack.enter_context(
                    av.open(
                        _Nameless(_needed(file, data, contents)),
                        "r",
                        options={"format_whitelist": _FORMATS},
                        metadata_errors="replace",
                    )
                )
                fps, label, timed = _describe(container, contents, path)
                seconds = _said_seconds(container, contents)
            yield fps, label, seconds
            yield from _steady(timed, fps)
        except EOFError:
            raise MediaError(f"{path} is cut off: its end is missing") from None
        except (FFmpegError, OSError, ValueError, IndexError) as error:
            raise MediaError(f"{path} is not a video or picture that can be read, or it is damaged") from error


def _open(path: Path) -> IO[bytes]:
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder; give a video or picture file")
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise MediaError(f"{path} is not an ordinary file")
        file = path.open("rb")
    except FileNotFoundError:
        raise MediaError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if not os.fstat(file.fileno()).st_size:
        file.close()
        raise MediaError(f"{path} is empty")
    return file


def _needed(file: IO[bytes], data: _containers.Data, contents: _containers.Contents | None) -> IO[bytes]:
    """The file, less what FFmpeg may refuse it for: a PNG's EXIF, in which many programs have made mistakes."""
    start, end = contents.needless if contents else (0, 0)
    return BytesIO(data[:start] + data[end:]) if end else file


class _Nameless:
    """A file without its name, because FFmpeg reads protocols and number patterns into names."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _describe(
    container: InputContainer, contents: _containers.Contents | None, path: Path
) -> tuple[float, str, Generator[Timed]]:
    """Rate, label and timed frames of what FFmpeg has opened."""
    if not container.streams.video:
        raise MediaError(f"{path} has no picture in it: it is only sound or text, or damaged")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MediaError(f"{path} has no picture that can be decoded")
    _check_size(stream.codec_context.width, stream.codec_context.height, path)
    _check_whole(container, path)
    label = contents.label if contents else container.metadata.get("comment", "")
    frames = _av_frames(container, path, _EXIF_TURNS[contents.orientation] if contents else None)
    if container.format.name in _PICTURES:
        return STILL_FPS, label, _first_only(frames)
    if contents and contents.durations:
        return _rate(contents.durations, 0.01 if contents.kind == "gif" else 0.001), label, frames
    return _nominal_rate(stream), label, frames


def _said_seconds(container: InputContainer, contents: _containers.Contents | None) -> float | None:
    """How long a clip says it is."""
    if container.format.name in _PICTURES:
        return None
    if contents and contents.durations:
        return sum(contents.durations)
    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _check_size(width: int, height: int, path: Path) -> None:
    if width * height > MOST_PIXELS:
        most = f"{MOST_PIXELS / 1e6:.0f} million pixels"
        raise MediaError(f"{path} is too large: {width}x{height}, more than {most}; make it smaller first")


def _first_only(frames: Iterator[Timed]) -> Generator[Timed]:
    yield from islice(frames, 1)


def _check_whole(container: InputContainer, path: Path) -> None:
    """An MP4 or MOV knows where its last frame ends; a shorter file was cut off (FFmpeg would just stop early)."""
    index = container.streams.video[0].index_entries
    if "mp4" in container.format.name and len(index) and index[-1].pos + index[-1].size > container.size:
        raise MediaError(f"{path} is cut off: its end is missing")


def _nominal_rate(stream: av.VideoStream) -> float:
    """The rate that a stream claims or, if its frames come far less often, the most usual one, a whole number."""
    claimed, average = float(stream.guessed_rate or 0), float(stream.average_rate or 0)
    if 0 < claimed <= min(240, 1.5 * average or 240):
        return claimed
    times = [entry.timestamp for entry in islice(stream.index_entries, 1000)]
    if len(times) > 2 and stream.time_base:
        return float(min(max(1, round(1 / (float(np.median(np.diff(times))) * stream.time_base))), 240))
    return average if 0 < average <= 240 else 25.0


def _rate(durations: tuple[float, ...], clock: float) -> float:
    """The rate of an animation whose times are rounded to `clock` s: a whole number if one explains them all."""
    mean = sum(durations) / len(durations)
    if mean <= 0:
        return 10.0
    starts = np.cumsum((0.0, *durations))
    for rate in (float(round(1 / mean)), 1 / mean):
        if rate and np.abs(starts - np.arange(len(starts)) / rate).max() < 1.01 * clock:
            return rate
    return 1 / max(min(durations), 0.02)  # frames of various lengths: the shortest is a frame, the others are repeats


def _steady(frames: Generator[Timed], fps: float) -> Iterator[np.ndarray]:
    """Repeat and drop frames so that one is shown every 1/fps: each at the tick nearest to its time."""
    origin, shown, waiting, duration = None, 0, None, 0.0
    with contextlib.closing(frames):
        for time, lasts, pixels in frames:
            tick = 0 if origin is None else round((time - origin) * fps)
            if origin is None or not -fps <= tick - shown <= _LONGEST_GAP * fps:
                tick = shown + (waiting is not None)
                origin = time - tick / fps
            if waiting is not None:
                for _ in range(tick - shown):
                    yield waiting
                shown = max(shown, tick)
            waiting, duration = pixels, lasts
    if waiting is not None:
        for _ in range(max(1, min(round(duration * fps), int(_LONGEST_GAP * fps)))):
            yield waiting


def _av_frames(container: InputContainer, path: Path, turn: Turn | None) -> Generator[Timed]:
    """`turn` None: as the frames themselves say."""
    stream = container.streams.video[0]
    size, time, step = None, 0.0, 1 / _nominal_rate(stream)
    for frame in _progressive(_decoded(container, path)):
        time = time + step if frame.time is None else float(frame.time)
        lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        size, turn = size or _shown_size(frame, stream), turn or _stored_turn(frame)
        yield time, lasts, _upright(_pixels(frame, size), turn)


def _decoded(container: InputContainer, path: Path) -> Iterator[av.VideoFrame]:
    from av.error import InvalidDataError

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    decoder, begun = _decoder(stream), False
    for packet in container.demux(stream):
        try:
            frames = decoder.decode(packet)
        except InvalidDataError:
            if not begun:  # a recording may begin between two key frames
                continue
            raise
        for frame in frames:
            if frame.is_corrupt:
                raise MediaError(f"{path} is damaged {frame.time or 0:.2f} s from its start")
            begun = True
            yield frame


def _decoder(stream: av.VideoStream) -> av.VideoCodecContext:
    """FFmpeg's own decoders of VP8 and VP9 leave out transparency; those of libvpx do not."""
    from av import CodecContext

    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name and stream.metadata.get("alpha_mode") == "1":
        with contextlib.suppress(ValueError):  # this FFmpeg was built without it
            return cast("av.VideoCodecContext", CodecContext.create(name, "r"))
    return stream.codec_context


def _progressive(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """From the first interlaced frame on, frames whose two halves show one moment; the others as they are."""
    graph = None
    for frame in frames:
        if graph is None and frame.interlaced_frame and min(frame.width, frame.height) >= 4:
            graph = _deinterlacer(frame)
        if graph is None:
            yield frame
        else:
            graph.push(frame)
            yield from _filtered(graph)
    if graph is not None:
        graph.push(None)
        yield from _filtered(graph)


def _deinterlacer(frame: av.VideoFrame) -> av.filter.Graph:
    import av.filter

    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _filtered(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    from av.error import BlockingIOError, EOFError

    with contextlib.suppress(BlockingIOError, EOFError):  # it waits for more frames, or there are none
        while True:
            yield cast("av.VideoFrame", graph.pull())


def _shown_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Width and height with square pixels, before rotation."""
    aspect = stream.sample_aspect_ratio
    return (max(1, round(frame.width * aspect)) if aspect else frame.width), frame.height


def _stored_turn(frame: av.VideoFrame) -> Turn:
    """How the display matrix of a video (phones write one) turns and mirrors it."""
    try:
        matrix = bytes(frame.side_data.get("DISPLAYMATRIX", b""))
    except ValueError:  # PyAV stumbles over kinds of side data that are newer than it is
        return _EXIF_TURNS[{0: 1, 1: 8, 2: 3, 3: 6}[round(frame.rotation / 90) % 4]]
    if len(matrix) < 20:
        return _AS_STORED
    a, b, _, c, d = struct.unpack("5i", matrix[:20])  # (x, y) is shown at (ax + cy, bx + dy)
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    return swapped, (c if swapped else a) < 0, (b if swapped else d) < 0


def _upright(pixels: np.ndarray, turn: Turn) -> np.ndarray:
    swapped, across, down = turn
    pixels = pixels.swapaxes(0, 1) if swapped else pixels
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


def _pixels(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """uint8 `[H, W, 3]` as stored, transparent parts on white."""
    width, height = size
    # Untagged high-definition video is BT.709 by convention; 2 is "unspecified".
    matrix = "ITU709" if frame.colorspace == 2 and frame.height >= 720 and "yuv" in frame.format.name else None
    if frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components):
        return on_white(frame.reformat(width, height, _RGBA, src_colorspace=matrix, interpolation=_FINE).to_ndarray())
    return frame.reformat(width, height, "rgb24", src_colorspace=matrix, interpolation=_FINE).to_ndarray()


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 `[H, W, 4]` with straight alpha → `[H, W, 3]` as seen on white paper."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _webp_frames(data: _containers.Data, contents: _containers.Contents, path: Path) -> Generator[Timed]:
    """Draw each frame of an animated WebP onto the canvas, as its container specification says."""
    width, height = contents.size
    canvas, time = np.zeros((height, width, 4), np.uint8), 0.0
    for frame in _containers.webp_frames(data):
        patch = _still(frame.image)
        area = (slice(frame.top, frame.top + frame.height), slice(frame.left, frame.left + frame.width))
        if canvas[area].shape != patch.shape:
            raise MediaError(f"{path} is damaged: a frame does not fit its canvas")
        canvas[area] = _over(patch, canvas[area]) if frame.blend else patch
        yield time, frame.duration, _upright(on_white(canvas), _EXIF_TURNS[contents.orientation])
        if frame.clear_after:
            canvas[area] = 0
        time += frame.duration


def _still(image: bytes) -> np.ndarray:
    import av

    with av.open(BytesIO(image), "r", options={"format_whitelist": "webp_pipe"}) as container:
        return next(container.decode(video=0)).to_ndarray(format=_RGBA)


def _over(front: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Straight-alpha uint8 `[H, W, 4]` `front` drawn over `back`."""
    if (front[..., 3] == 255).all():
        return front
    near, far = front[..., 3:] / 255.0, back[..., 3:] / 255.0
    alpha = near + far * (1 - near)
    colour = (front[..., :3] * near + back[..., :3] * far * (1 - near)) / np.maximum(alpha, 1e-6)
    return np.concatenate((colour, 255 * alpha), -1).round().astype(np.uint8)
