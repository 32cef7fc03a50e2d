"""One request in vLLM's own terms: prompt, sampling, candidates, beam search under a grammar.

In: a GenerationRequest, a running AsyncLLM. Out: a prompt; SamplingParams; candidates of an answer;
the beams of a request. Does not know: how an engine starts, dies or comes back.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.report.beam import Beam, Tokens, beam_search
from raypipe.report.engine import Candidate, GenerationRequest
from raypipe.report.vllm_settings import MOST_LOG_PROBABILITIES


def prompt_of(tokens: Sequence[int], prefix: NDArray[np.float32] | None) -> dict[str, Any]:
    """A prompt of tokens, with embeddings in front where there are some.

    Behind a prefix the tokens stay tokens, so that the engine embeds them by its own table.
    """
    if prefix is None or not len(prefix):
        return {"prompt_token_ids": list(tokens)}
    import torch

    ahead = len(prefix)
    embeds = torch.zeros((ahead + len(tokens), prefix.shape[1]), dtype=torch.float32)
    embeds[:ahead] = torch.from_numpy(np.ascontiguousarray(prefix, dtype=np.float32))
    return {
        "prompt_embeds": embeds,
        "prompt_token_ids": [*[0] * ahead, *tokens],
        "prompt_is_token_ids": [*[False] * ahead, *[True] * len(tokens)],
    }


def sampling(request: GenerationRequest) -> Any:
    """The SamplingParams of greedy, sample and best_of."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    grammar, decoding = request.grammar, request.decoding
    return SamplingParams(
        n=decoding.width,
        logprobs=0 if decoding.method == "best_of" else None,  # of the drawn tokens alone
        max_tokens=request.max_tokens,
        temperature=decoding.temperature,
        seed=decoding.seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
        structured_outputs=StructuredOutputsParams(grammar=grammar) if grammar else None,
    )


def candidates(output: Any) -> tuple[Candidate, ...]:
    """The whole answers of a best_of, the likeliest a token first."""
    whole = [one for one in output.outputs if one.finish_reason == "stop"]
    found = [
        Candidate(
            text=one.text, log_probability=one.cumulative_logprob / max(len(one.token_ids), 1)
        )
        for one in whole
    ]
    return tuple(sorted(found, key=lambda candidate: -candidate.log_probability))


async def search(
    engine: Any,
    grammars: "Grammars",
    request: GenerationRequest,
    prompt: Sequence[int],
    lora: Any,
) -> list[Beam]:
    """The beams of a request.

    Args:
        engine: a running AsyncLLM.
        grammars: of this engine.
        request: its decoding is a beam.
        prompt: tokens of the messages.
        lora: a LoRARequest or None.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    width = request.decoding.width
    start = grammars.start(request.grammar)

    async def score(
        prefixes: Sequence[Tokens], allowed: Sequence[Tokens | None]
    ) -> list[Mapping[int, float]]:
        async def one(prefix: Tokens, tokens: Tokens | None) -> Mapping[int, float]:
            few = tokens is not None and len(tokens) <= MOST_LOG_PROBABILITIES
            parameters = SamplingParams(
                max_tokens=1,
                temperature=0.0,
                logprobs=None if few else min(2 * width, MOST_LOG_PROBABILITIES),
                logprob_token_ids=list(tokens or ()) if few else None,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            stream = engine.generate(
                prompt_of([*prompt, *prefix], request.prefix),
                parameters,
                uuid.uuid4().hex,
                lora_request=lora,
            )
            async for output in stream:
                found = output.outputs[0].logprobs[0]
                return {int(token): float(value.logprob) for token, value in found.items()}
            return {}

        return list(
            await asyncio.gather(*(one(p, a) for p, a in zip(prefixes, allowed, strict=True)))
        )

    return await beam_search(score, start, start.end_tokens, width, request.max_tokens)


class GrammarConstraint:
    """The grammar behind some tokens, by xgrammar."""

    def __init__(self, matcher: Any, vocabulary: int, end_tokens: frozenset[int]) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self.end_tokens = end_tokens

    def allowed(self) -> Tokens:
        """The tokens that may follow."""
        import numpy as np
        import xgrammar

        if self._matcher.is_terminated():
            return ()
        mask = xgrammar.allocate_token_bitmask(1, self._vocabulary)
        self._matcher.fill_next_token_bitmask(mask)
        bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")
        return tuple(int(token) for token in np.flatnonzero(bits[: self._vocabulary]))

    def after(self, token: int) -> "GrammarConstraint":
        """The grammar behind one more token."""
        matcher = self._matcher.fork()
        accepted = matcher.accept_token(token)
        assert accepted, "the token was among the allowed ones"
        return GrammarConstraint(matcher, self._vocabulary, self.end_tokens)


class Free:
    """No grammar: any token may follow."""

    def __init__(self, end_tokens: frozenset[int]) -> None:
        self.end_tokens = end_tokens

    def allowed(self) -> None:
        """Any."""
        return None

    def after(self, token: int) -> "Free":
        """Still any."""
        return self


class Grammars:
    """Compiles grammars for the vocabulary of one engine; equal ones are compiled once.

    Args:
        engine: a running AsyncLLM.
    """

    def __init__(self, engine: Any) -> None:
        import xgrammar

        tokenizer = engine.get_tokenizer()
        self._ends = frozenset({int(tokenizer.eos_token_id)})
        self._vocabulary = int(engine.model_config.get_vocab_size())
        self._compiler = xgrammar.GrammarCompiler(
            xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=self._vocabulary)
        )

    def start(self, grammar: str | None) -> GrammarConstraint | Free:
        """The constraint before the first token.

        Raises:
            ValueError: the grammar is none.
        """
        import xgrammar

        if grammar is None:
            return Free(self._ends)
        try:
            compiled = self._compiler.compile_grammar(grammar)
        except RuntimeError as error:
            raise ValueError("the grammar cannot be compiled") from error
        matcher = xgrammar.GrammarMatcher(compiled)
        return GrammarConstraint(matcher, self._vocabulary, frozenset(matcher.stop_token_ids))
