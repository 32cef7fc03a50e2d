"""The one builder of requests to a language model, for batch and online.

In: a ReportPlan. Out: messages, the grammar of every report that is true to the plan, a decoding
plan, the adapter, and a limit of tokens that the grammar cannot exceed.
Does not know: engines, Ray. A plan holds closed vocabulary only; text of a DICOM header comes here
where the config allows a field by name, and then as quoted, harmless characters.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from raypipe.report.config import ReportConfig
from raypipe.report.engine import Decoding, GenerationRequest, Message
from raypipe.report.phrase import Phrase, ebnf, first, longest_bytes, narrowed, seq
from raypipe.report.plan import Fact, ReportPlan
from raypipe.report.sections import Slot, report_phrase

_END_TOKENS = 1
_TEMPLATE_TOKENS = 64
"""What a chat template adds to the messages, at most."""
_HEADER_LIMIT = 64
_REPAIR_OPTIONS = 2
"""Wordings of each choice that a repair may still take."""


def build_request(plan: ReportPlan, config: ReportConfig, adapter: str = "") -> GenerationRequest:
    """The request for one series; its grammar holds every allowed report and always ends.

    Args:
        plan: what the report has to say.
        config: decoding plan, allowed header text.
        adapter: id of the LoRA adapter, "" for none.
    """
    return _request(plan, report_phrase(plan), prompt(plan, config), config, adapter)


def build_repair(
    plan: ReportPlan, slots: Sequence[Slot], config: ReportConfig, adapter: str = ""
) -> GenerationRequest:
    """The request for sentences that the verifier refused: these alone, in fewer wordings.

    Args:
        plan: what the report has to say.
        slots: the sentences, at least one; the answer has a line for each.
        config: as before.
        adapter: as before.
    """
    if not slots:
        raise ValueError("build_repair: at least one sentence")
    lines = [narrowed(slot.phrase, _REPAIR_OPTIONS) for slot in slots]
    phrase = seq(lines[0], *(part for line in lines[1:] for part in ("\n", line)))
    return _request(plan, phrase, prompt(plan, config, cited(slots)), config, adapter)


def cited(slots: Iterable[Slot]) -> set[str]:
    """Ids of the findings that some sentences are about."""
    return {finding_id for slot in slots for finding_id in slot.finding_ids}


def listed(plan: ReportPlan, wanted: set[str] | None = None) -> list[Fact]:
    """The findings that a prompt lists, in its order; all that are told if `wanted` is None."""
    return [fact for fact in plan.told if wanted is None or fact.finding_id in wanted]


def _request(
    plan: ReportPlan, phrase: Phrase, user: str, config: ReportConfig, adapter: str
) -> GenerationRequest:
    return GenerationRequest(
        messages=(
            Message(role="system", content=plan.terminology.language.prompt.system),
            Message(role="user", content=user),
        ),
        grammar=ebnf(phrase),
        max_tokens=longest_bytes(phrase) + _END_TOKENS,
        decoding=decoding(plan, config),
        adapter=adapter or None,
        example=first(phrase),
    )


def decoding(plan: ReportPlan, config: ReportConfig) -> Decoding:
    """How the text is chosen: as configured, a beam the wider the less certain the findings are.

    A finding of probability p is as uncertain as 4 p (1 - p): 1 where it is a toss-up, 0 where it
    is certain. The width lies between the two configured by the mean over the findings told.
    """
    wanted = config.decoding
    match wanted.method:
        case "greedy":
            return Decoding()
        case "sample":
            return Decoding(method="sample", temperature=wanted.temperature, seed=wanted.seed)
        case "best_of":
            return Decoding(
                method="best_of",
                temperature=wanted.temperature,
                width=wanted.candidates,
                seed=wanted.seed,
            )
        case "beam":
            spread = wanted.beam_width_uncertain - wanted.beam_width
            width = wanted.beam_width + round(spread * _uncertainty(plan.told))
            return Decoding(method="beam", width=width)


def _uncertainty(facts: Sequence[Fact]) -> float:
    chances = [fact.score if fact.probability is None else fact.probability for fact in facts]
    unsure = [4.0 * p * (1.0 - p) for p in (min(max(c, 0.0), 1.0) for c in chances)]
    return sum(unsure) / len(unsure) if unsure else 0.0


def tokens_bound(request: GenerationRequest) -> int:
    """A bound on the tokens of prompt and answer: no token is shorter than one byte."""
    prompt_bytes = sum(len(message.content.encode()) for message in request.messages)
    ahead = 0 if request.prefix is None else len(request.prefix)
    return ahead + prompt_bytes + _TEMPLATE_TOKENS + request.max_tokens


def prompt(plan: ReportPlan, config: ReportConfig, wanted: set[str] | None = None) -> str:
    """The user's message: region, findings as a list, what was looked for and not seen.

    Args:
        plan: what the report has to say.
        config: which header text may stand in it.
        wanted: ids of the findings to list; all if None.
    """
    words = plan.terminology.language.prompt
    lines = [f"{words.region}: {', '.join(plan.regions) or words.not_known}"]
    lines += _header_lines(plan, config)
    told = listed(plan, wanted)
    if told:
        lines += [f"{words.findings}:", *(_listed(fact, plan) for fact in told)]
    else:
        lines.append(f"{words.findings}: {words.none}")
    if plan.denied:
        denied = ", ".join(term.written[0] for term in plan.denied)
        lines.append(f"{words.not_detected}: {denied}")
    return "\n".join([*lines, words.write])


def _listed(fact: Fact, plan: ReportPlan) -> str:
    """ "[F1] pulmonary nodule; right; upper third; 12 mm; 35 HU; margin spiculated"."""
    terminology = plan.terminology
    level = terminology.level_name(fact.level) if fact.level is not None else None
    side = terminology.language.sides[fact.side] if fact.side else None  # type: ignore[index]
    values = [fact.term.written[0], side, level]
    values.append(terminology.size_text(fact.size_mm) if fact.size_mm is not None else None)
    values.append(terminology.hu_text(fact.hu) if fact.hu is not None else None)
    values += [f"{name} {words}" for name, _, words in fact.adjectives]
    return f"[{fact.finding_id}] " + "; ".join(value for value in values if value)


def _header_lines(plan: ReportPlan, config: ReportConfig) -> list[str]:
    allowed = set(config.allow_header_text)
    shown = [
        f'{name} "{text}"'
        for name, raw in plan.context.header_text
        if name in allowed and (text := escaped(raw))
    ]
    return [f"{plan.terminology.language.prompt.header}: {'; '.join(shown)}"] if shown else []


def escaped(text: str) -> str:
    """Text of a header as harmless characters: one line, no quotes, no brackets, cut off.

    Letters, digits, blanks and a little punctuation stay; ids such as [F1], tags of a chat
    template and line ends cannot be made of them.
    """
    plain = unicodedata.normalize("NFKC", text[: 8 * _HEADER_LIMIT])
    plain = re.sub(r"[^\w .,/+%-]|_", " ", plain)
    return " ".join(plain.split())[:_HEADER_LIMIT].rstrip()
