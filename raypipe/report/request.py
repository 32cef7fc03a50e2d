"""The one builder of requests to a language model, for batch and online.

In: a ReportPlan. Out: messages, the grammar of every report that is true to the plan, and a limit
of tokens that the grammar cannot exceed.
Does not know: engines, Ray. No text of a header comes here: a plan holds closed vocabulary only.
"""

from collections.abc import Sequence

from raypipe.knowledge.terminology import hu_text, size_text
from raypipe.report.config import ReportConfig
from raypipe.report.engine import GenerationRequest, Message
from raypipe.report.phrase import Phrase, ebnf, first, longest_bytes, seq
from raypipe.report.plan import Fact, ReportPlan
from raypipe.report.wording import findings_section, impression_section

FINDINGS_HEADER = "FINDINGS:"
IMPRESSION_HEADER = "IMPRESSION:"
_END_TOKENS = 1
_TEMPLATE_TOKENS = 64
"""What a chat template adds to the messages, at most."""

SYSTEM = (
    "You are a radiologist who writes CT reports. State every finding of the list once, in plain "
    "radiological language, and cite its id in square brackets. Vary the wording. Add nothing "
    "that is not in the list. The impression names the important findings again."
)


def build_request(plan: ReportPlan, config: ReportConfig) -> GenerationRequest:
    """The request for one series; its grammar holds every allowed report and always ends."""
    phrase = report_phrase(plan)
    return GenerationRequest(
        messages=(
            Message(role="system", content=SYSTEM),
            Message(role="user", content=prompt(plan)),
        ),
        grammar=ebnf(phrase),
        max_tokens=longest_bytes(phrase) + _END_TOKENS,
        temperature=config.temperature,
        seed=config.seed,
        example=first(phrase),
    )


def report_phrase(plan: ReportPlan) -> Phrase:
    """Every text that a language model may write for a plan."""
    return seq(
        _section(FINDINGS_HEADER, findings_section(plan)),
        "\n",
        _section(IMPRESSION_HEADER, impression_section(plan)),
    )


def tokens_bound(request: GenerationRequest) -> int:
    """A bound on the tokens of prompt and answer: no token is shorter than one byte."""
    prompt_bytes = sum(len(message.content.encode()) for message in request.messages)
    return prompt_bytes + _TEMPLATE_TOKENS + request.max_tokens


def prompt(plan: ReportPlan) -> str:
    """The user's message: region, findings as a list, what was looked for and not seen."""
    lines = [f"Region: {', '.join(plan.regions) or 'not known'}"]
    if plan.told:
        lines += ["Findings:", *(_listed(fact) for fact in plan.told)]
    else:
        lines.append("Findings: none")
    if plan.denied:
        lines.append(f"Not detected: {', '.join(term.written[0] for term in plan.denied)}")
    return "\n".join([*lines, "Write the report."])


def _listed(fact: Fact) -> str:
    """ "[F1] pulmonary nodule; right; upper third; 12 mm; 35 HU; margin spiculated"."""
    values = [fact.term.written[0], fact.side, fact.level]
    values.append(size_text(fact.size_mm) if fact.size_mm is not None else None)
    values.append(hu_text(fact.hu) if fact.hu is not None else None)
    values += [f"{name} {words}" for name, _, words in fact.adjectives]
    return f"[{fact.finding_id}] " + "; ".join(value for value in values if value)


def _section(header: str, sentences: Sequence[Phrase]) -> Phrase:
    return seq(header, *(part for sentence in sentences for part in ("\n", sentence)))
