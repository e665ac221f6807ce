"""What a prompt says is not to be: captions tell only of what is there, so that this cannot be told."""

from __future__ import annotations

import re

from yozora.prompts.nearest import guess_language

SHORT = (
    r"(?:(?:do|does|did|is|are|was|were|ai|ca|could|wo|would|should|must|need|sha|has|have)n['’]|(?:ca|do|does|is)n)t"
)
DENIES = {
    "en": rf"not|cannot|no|none|nothing|nobody|never|without|neither|nor|{SHORT}|instead of|rather than|anything but"
    r"|lack(?:s|ing)?|(?:refuses to|avoids) \w+"
    r"|stop(?:s|ped)? (?!during|evening|morning|spring|being)\w+ing",
    "de": r"nichts?|kein(?:e[mnrs]?)?|ohne|nie|niemals|niemand|nimmer|keinerlei|weder"
    r"|nirgend(?:s|wo)|(?:an)?statt|anstelle",
    "fr": r"pas|sans|jamais|aucune?|rien|ni|nulle part|(?:ne |n['’])\w+ (?:plus|guère)|au lieu d[eu’']|plutôt qu[e’']",
    "es": r"no|sin|nunca|jamás|ning[uú]na?|ningún|nadie|ni|tampoco|deja de|en (?:vez|lugar) del?",
}
STILL = {  # to be still is told by a denial, and that text or music are not wanted goes without saying
    "en": r"nothing (?:else|happens|moves)|(?:not|no|never|without|doesn['’]t|isn['’]t)(?: any)? "
    r"(?:mov\w+(?! (?:to|left|right|towards|away))|motion|text|music|sound)",
    "de": r"nichts (?:anderes|weiter|sonst)|sonst nichts|"
    r"(?:bewegt|rührt) sich(?: \w+){0,4} nicht|ohne (?:jede )?(?:bewegung|sich zu|text|musik|ton)\w*",
    "fr": r"de nulle part|rien d['’]autre|"
    r"bouge(?:ant)? pas|sans (?:bouger|mouvement|cesse|rien faire|arrêt|texte|musique)",
    "es": r"no se mueve|no hace nada|sin (?:mover\w*|movimiento|hacer nada|parar|cesar|texto|música)",
}


def denial(text: str) -> str:
    """The word by which a text denies something; "" where it denies nothing but motion."""
    language = guess_language(text)
    rest = re.sub(rf"\b(?:{STILL[language]})\b", " ", text, flags=re.IGNORECASE)
    found = re.search(rf"\b(?:{DENIES[language]})\b", rest, re.IGNORECASE)
    return found[0] if found else ""
