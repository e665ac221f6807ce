"""What clients send: pictures and clips, looked at before they are kept. Their names are never used."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from yozora.clip import FrameReader, open_frames
from yozora.errors import MediaError
from yozora.serve.accounts import User, lock
from yozora.serve.context import Service
from yozora.serve.errors import ApiError, invalid, missing, wait
from yozora.serve.orders import named_in
from yozora.serve.storage import StorageError
from yozora.serve.tables import UNFINISHED, Character, Job, Upload, new_id

__all__ = [
    "create_character",
    "delete_character",
    "discard",
    "find_character",
    "find_upload",
    "list_characters",
    "made_character",
    "receive",
    "remove_upload",
    "wanted",
]

MOST = 200  # uploads an account at a time; the oldest make way
MOMENT = 600.0  # seconds in which what was sent may still be ordered with
MOST_CHARACTERS = 100  # an account
LONGEST_NAME = 100
PREFIX = "upload-"  # of what is being looked at, in scratch
Row = TypeVar("Row", Upload, Character)
_log = logging.getLogger(__name__)


def receive(service: Service, user: User, part: UploadFile | bytes, param: str = "file") -> Upload:
    """Keeps a picture or a clip. Raises ApiError for what is none, or too large, and where there is no room."""
    with _looked_at(service, part, param) as (path, given, digest, size):
        name = new_id("file")
        upload = Upload(
            id=name,
            account_id=user.id,
            key=f"{service.folder}/uploads/{name}",
            digest=digest,
            bytes=size,
            width=given.size[0],
            height=given.size[1],
            fps=given.fps,
            seconds=given.seconds,
            created_at=time.time(),
        )
        service.storage.put(upload.key, path)
        try:
            with service.database.writing() as session:
                gone = _make_room(session, user)
                session.add(upload)
        except BaseException:
            service.storage.delete([upload.key])
            raise
        with suppress(StorageError):  # what stays behind is swept up as an orphan
            service.storage.delete(gone)
        return upload


def _make_room(session: Session, user: User) -> list[str]:
    """The oldest of too many uploads go, but for those that videos which are not finished are made from, and those that
    came a moment ago, for an order that is still to come. The keys of their files. Raises ApiError where all stay."""
    lock(session, user.id)
    own = sa.select(Upload).where(Upload.account_id == user.id).order_by(Upload.created_at)
    rows = session.scalars(own).all()
    over = len(rows) - MOST + 1
    if over <= 0:
        return []
    needed, fresh = wanted(session, user.id), time.time() - MOMENT
    spare = [row for row in rows if row.id not in needed and (row.ordered_at or row.created_at < fresh)][:over]
    if len(spare) < over:
        told = f"you have {len(rows)} uploads, which videos are waiting to be made from, or which have just come"
        raise wait(told, 60, "too_many_uploads")
    for row in spare:
        session.delete(row)
    return [row.key for row in spare]


def wanted(session: Session, account_id: str | None = None) -> set[str]:
    """Ids of what videos are to be made from that are not finished: everybody's, or an account's."""
    orders = sa.select(Job.order).where(Job.status.in_(UNFINISHED))
    if account_id is not None:
        orders = orders.where(Job.account_id == account_id)
    return {found for order in session.scalars(orders) for found in named_in(order)}


def remove_upload(service: Service, user: User, upload_id: str) -> None:
    """Removes somebody's own upload before its time. Raises ApiError, also while a video waits to be made from it."""
    _remove(service, user, Upload, "file", upload_id, "upload_in_use")


def discard(service: Service, upload: Upload) -> None:
    """Removes an upload with which nothing was ordered. Where that fails, it goes when its time is over: the request's
    answer stands."""
    unused = sa.delete(Upload).where(Upload.id == upload.id, Upload.ordered_at.is_(None))
    try:
        with service.database.writing() as session:
            gone = session.scalar(unused.returning(Upload.id))
        if gone is not None:
            service.storage.delete([upload.key])
    except (SQLAlchemyError, StorageError) as error:
        _log.warning("an upload stays that nothing was ordered with", extra={"reason": str(error)[:300]})


def find_upload(service: Service, user: User, upload_id: str) -> Upload:
    """Somebody's own upload. Raises ApiError."""
    return _own(service, user, Upload, "file", upload_id)


def made_character(service: Service, user: User, once: str | None, fingerprint: str | None) -> Character | None:
    """What a request with the key `once` has made already. Raises ApiError where that was another request."""
    if once is None:
        return None
    with service.database.reading() as session:
        made = session.get(Character, _id_of(user, once))
    if made is not None and made.fingerprint not in (None, fingerprint):
        raise invalid("this Idempotency-Key was used for another request", None, "idempotency_key_reused")
    return made


def create_character(
    service: Service,
    user: User,
    name: str,
    part: UploadFile | bytes,
    once: str | None = None,
    fingerprint: str | None = None,
) -> Character:
    """A name for somebody or something in a clip; under the key `once`, which goes with a request's `fingerprint`, what
    that made already. Raises ApiError."""
    if made := made_character(service, user, once, fingerprint):
        return made
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise invalid(f"a character's name has 1 to {LONGEST_NAME} characters", "name")
    with _looked_at(service, part, "video") as (path, _, _, _):
        new = new_id("char") if once is None else _id_of(user, once)
        with service.database.reading() as session:
            _check_characters(session, user)
        # a name of its own: the same request may come twice at once
        key = f"{service.folder}/characters/{new}/{secrets.token_hex(8)}"
        character = Character(
            id=new, account_id=user.id, name=name, key=key, fingerprint=fingerprint, created_at=time.time()
        )
        service.storage.put(character.key, path)
        try:
            with service.database.writing() as session:
                lock(session, user.id)
                _check_characters(session, user)
                session.add(character)
        except BaseException as error:
            service.storage.delete([key])
            same_moment = isinstance(error, ApiError | IntegrityError)  # perhaps of the same key
            if same_moment and (made := made_character(service, user, once, fingerprint)):
                return made
            raise
        return character


def _check_characters(session: Session, user: User) -> None:
    own = session.scalar(sa.select(sa.func.count()).where(Character.account_id == user.id)) or 0
    if own >= MOST_CHARACTERS:
        raise invalid(f"you have {own} characters already: DELETE /api/characters/ID removes one", "name")


def find_character(service: Service, user: User, character_id: str) -> Character:
    """Somebody's own character. Raises ApiError."""
    return _own(service, user, Character, "character", character_id)


def list_characters(service: Service, user: User) -> list[Character]:
    """Somebody's own characters, oldest first."""
    with service.database.reading() as session:
        found = sa.select(Character).where(Character.account_id == user.id).order_by(Character.created_at)
        return list(session.scalars(found))


def delete_character(service: Service, user: User, character_id: str) -> None:
    """Removes a character and its clip. Raises ApiError, also while a video waits to begin with it."""
    _remove(service, user, Character, "character", character_id, "character_in_use")


def _id_of(user: User, once: str) -> str:
    """The id of the character that an account makes under a key; as hard to guess as the account's own."""
    digest = hashlib.sha256(f"{user.id} {once}".encode()).hexdigest()
    return f"char_{digest[:32]}"


def _remove(service: Service, user: User, table: type[Row], what: str, name: str, in_use: str) -> None:
    with service.database.writing() as session:
        lock(session, user.id)
        row = session.get(table, name)
        if row is None or row.account_id != user.id:
            raise missing(what, name)
        if name in wanted(session, user.id):
            raise ApiError(409, f"a video is waiting to be made from this {what}", code=in_use)
        session.delete(row)
    service.storage.delete([row.key])


def _own(service: Service, user: User, table: type[Row], what: str, name: str) -> Row:
    with service.database.reading() as session:
        row = session.get(table, name)
        if row is None or row.account_id != user.id:
            raise missing(what, name)
        return row


@contextmanager
def _looked_at(service: Service, part: UploadFile | bytes, param: str) -> Iterator[tuple[Path, FrameReader, str, int]]:
    """What was sent, in a file for as long as the block lasts: its path, what it says of itself, SHA-256 and bytes."""
    service.settings.scratch.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=PREFIX, dir=service.settings.scratch)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            if isinstance(part, bytes):
                out.write(part)
            else:
                _copy(part.file, out)
        size = path.stat().st_size
        if size == 0:
            raise invalid("the file is empty", param, "invalid_file")
        try:
            with open_frames(path) as given:
                pass  # its first frame was read, and can be
        except MediaError as error:
            reason = str(error).replace(name, "the file")
            raise invalid(f"this is no picture or video that can be read: {reason}", param, "invalid_file") from None
        width, height = given.size
        if width * height > service.settings.max_pixels:
            most = service.settings.max_pixels / 1e6
            raise invalid(f"{width}x{height} are too many pixels: at most {most:.0f} million", param, "invalid_file")
        yield path, given, _digest(path), size
    finally:
        path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: IO[bytes], out: IO[bytes]) -> None:
    source.seek(0)
    shutil.copyfileobj(source, out, 2**18)
