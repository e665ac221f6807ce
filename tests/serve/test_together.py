"""Questions that come at the same time share a look; users that were recognised a moment ago are not looked up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from yozora.serve.accounts import User
from yozora.serve.context import Service
from yozora.serve.database import Database
from yozora.serve.known import Known
from yozora.serve.plans import find_plan
from yozora.serve.together import MOST, Together


def test_questions_that_come_at_once_share_looks() -> None:
    looks: list[list[int]] = []

    def look(keys: Sequence[int]) -> dict[int, int]:
        looks.append(list(keys))
        return {key: key * key for key in keys if key != 3}

    async def ask() -> list[int | None]:
        together = Together(look)
        return await asyncio.gather(*(together.ask(number % 250) for number in range(500)))

    assert asyncio.run(ask()) == [None if n % 250 == 3 else (n % 250) ** 2 for n in range(500)]
    assert [len(keys) for keys in looks] == [MOST, 250 - MOST]


def test_no_answer_is_older_than_its_question() -> None:
    """What changes while a look is under way is seen by whoever asks then."""
    state, begun, go = {"is": 0}, threading.Event(), threading.Event()

    def look(keys: Sequence[str]) -> dict[str, int]:
        seen = dict(state)
        begun.set()
        assert go.wait(10)
        return seen

    async def ask() -> tuple[int | None, int | None]:
        together = Together(look)
        first = asyncio.create_task(together.ask("is"))
        assert await asyncio.to_thread(begun.wait, 10)
        state["is"] = 1
        second = asyncio.create_task(together.ask("is"))
        await asyncio.sleep(0)
        go.set()
        return await first, await second

    assert asyncio.run(ask()) == (0, 1)


def test_what_goes_wrong_is_told_to_all_who_asked_and_to_nobody_else() -> None:
    broken = True

    def look(keys: Sequence[str]) -> dict[str, str]:
        if broken:
            raise OSError("away")
        return {key: key for key in keys}

    async def ask() -> list[object]:
        nonlocal broken
        together = Together(look)
        told: list[object] = [*await asyncio.gather(together.ask("a"), together.ask("b"), return_exceptions=True)]
        broken = False
        return [*told, await together.ask("a")]

    *failures, answer = asyncio.run(ask())
    assert [str(each) for each in failures] == ["away", "away"] and answer == "a"


def test_one_who_goes_away_takes_no_answer_from_the_others() -> None:
    async def ask() -> str | None:
        together = Together(lambda keys: {key: key for key in keys})
        gone, stays = asyncio.create_task(together.ask("a")), asyncio.create_task(together.ask("a"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert asyncio.run(ask()) == "a"


def test_users_are_known_for_a_moment_until_something_changes(shared: Service) -> None:
    asked: list[str] = []

    def look(database: Database, token: str) -> User:
        asked.append(token)
        return User(token, "user", find_plan("free"))

    async def ask() -> None:
        known = Known()
        for token in ("a", "a", "b", "a"):
            assert (await known.user(token, look, shared.database)).id == token
        assert asked == ["a", "b"]
        known.forget()
        await known.user("a", look, shared.database)

    asyncio.run(ask())
    assert asked == ["a", "b", "a"]
