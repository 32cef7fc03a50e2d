"""One engine in a process of its own: the same requests by raypipe, bare vLLM, transformers, Ray.

    python -m raypipe.bench.reports_peers WORK.json DONE.json

In: a Work: model, limits, sets of requests. Out: a Done: seconds, tokens and texts of every set.
Does not know: what is compared with what.

Each set is one submission; a few requests of their own come first and are not timed. Every set
holds other requests, so that no cache knows them. The time to start is not part of any number.
ray.data.llm cannot be timed set by set: its batches overlap, so all sets count as one, from when
the engine takes up the first request to when the last batch leaves it; nothing comes before.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from raypipe.report.config import VllmConfig
from raypipe.report.engine import GenerationRequest, Message
from raypipe.report.model_source import find_model
from raypipe.report.vllm_settings import engine_arguments, environment, start_environment
from raypipe.settings import Settings

_STAGES = 8
"""Logical CPUs of Ray: one for each actor of ray.data.llm, which would wait for ever for fewer."""

Peer = Literal["raypipe", "vllm", "transformers", "ray.data.llm"]


class Prompt(Settings):
    """One request; greedy."""

    messages: tuple[tuple[str, str], ...] = Field(description="role and content")
    grammar: str | None
    max_tokens: int

    def request(self) -> GenerationRequest:
        """As raypipe's engine takes it."""
        return GenerationRequest(
            messages=tuple(Message(role=role, content=text) for role, text in self.messages),
            grammar=self.grammar,
            max_tokens=self.max_tokens,
        )

    def chat(self) -> list[dict[str, str]]:
        """As chat templates take it."""
        return [{"role": role, "content": text} for role, text in self.messages]


class Work(Settings):
    """What one process does."""

    peer: Peer
    model: str
    vllm: VllmConfig
    warm: tuple[Prompt, ...]
    sets: tuple[tuple[Prompt, ...], ...]


class Done(Settings):
    """What came of it."""

    seconds: tuple[float, ...]
    tokens: tuple[int, ...]
    texts: tuple[tuple[str, ...], ...]


Answer = tuple[int, str]  # tokens, text


def work(told: Work) -> Done:
    """Start the peer's engine and answer every set."""
    match told.peer:
        case "raypipe":
            return _by_raypipe(told)
        case "vllm":
            return _by_vllm(told)
        case "transformers":
            return _by_transformers(told)
        case "ray.data.llm":
            return _by_ray(told)


def _timed(told: Work, answer: Any) -> Done:
    answer(told.warm)
    seconds, answers = [], []
    for prompts in told.sets:
        started = time.perf_counter()
        answers.append(answer(prompts))
        seconds.append(time.perf_counter() - started)
    return _done(seconds, answers)


def _done(seconds: Sequence[float], answers: Sequence[Sequence[Answer]]) -> Done:
    return Done(
        seconds=tuple(seconds),
        tokens=tuple(sum(tokens for tokens, _ in each) for each in answers),
        texts=tuple(tuple(text for _, text in each) for each in answers),
    )


def _by_raypipe(told: Work) -> Done:
    from raypipe.report.vllm_engine import VllmEngine

    engine = VllmEngine(find_model(told.model), told.vllm)

    def answer(prompts: Sequence[Prompt]) -> list[Answer]:
        done = engine.generate([prompt.request() for prompt in prompts])
        return [(one.tokens, one.text) for one in done]

    try:
        return _timed(told, answer)
    finally:
        engine.close()


def _by_vllm(told: Work) -> Done:
    """vllm.LLM as its documentation shows it, with the same sizes and the same threads."""
    source = find_model(told.model)
    with environment(_peer_environment(told)):
        from vllm import LLM, SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        arguments = _peer_arguments(told)
        llm = LLM(model=source.location, **arguments)

        def answer(prompts: Sequence[Prompt]) -> list[Answer]:
            parameters = [
                SamplingParams(
                    temperature=0.0,
                    max_tokens=prompt.max_tokens,
                    structured_outputs=(
                        StructuredOutputsParams(grammar=prompt.grammar) if prompt.grammar else None
                    ),
                )
                for prompt in prompts
            ]
            chats: Any = [prompt.chat() for prompt in prompts]
            done = llm.chat(chats, parameters, use_tqdm=False)
            return [(len(o.outputs[0].token_ids), o.outputs[0].text) for o in done]

        return _timed(told, answer)


def _peer_arguments(told: Work) -> dict[str, Any]:
    """Our engine's arguments without what is our own."""
    arguments = engine_arguments(find_model(told.model), told.vllm)
    own = ("model", "additional_config", "enable_log_requests")
    return {name: value for name, value in arguments.items() if name not in own}


def _peer_environment(told: Work) -> dict[str, str]:
    """Our engine's environment; processes as vLLM makes them by default."""
    variables = start_environment(find_model(told.model), told.vllm)
    variables.pop("VLLM_ENABLE_V1_MULTIPROCESSING")
    return variables


def _by_transformers(told: Work) -> Done:
    """generate() over padded batches of the same size, the longest prompts first."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if told.vllm.threads is not None:
        torch.set_num_threads(told.vllm.threads)
    location = find_model(told.model).location
    tokenizer = AutoTokenizer.from_pretrained(location, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32).eval()
    end = int(tokenizer.eos_token_id)

    def batch(prompts: Sequence[Prompt]) -> list[Answer]:
        texts = [
            tokenizer.apply_chat_template(p.chat(), add_generation_prompt=True, tokenize=False)
            for p in prompts
        ]
        encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                **encoded,
                do_sample=False,
                max_new_tokens=max(prompt.max_tokens for prompt in prompts),
                pad_token_id=tokenizer.pad_token_id,
            )
        answers = []
        for prompt, row in zip(prompts, out[:, encoded["input_ids"].shape[1] :], strict=True):
            tokens = row.tolist()[: prompt.max_tokens]
            length = tokens.index(end) + 1 if end in tokens else len(tokens)
            text = str(tokenizer.decode(tokens[:length], skip_special_tokens=True))
            answers.append((length, text))
        return answers

    def answer(prompts: Sequence[Prompt]) -> list[Answer]:
        longest = sorted(
            range(len(prompts)), key=lambda i: -sum(len(text) for _, text in prompts[i].messages)
        )
        found: dict[int, Answer] = {}
        for start in range(0, len(longest), told.vllm.max_num_seqs):
            chosen = longest[start : start + told.vllm.max_num_seqs]
            found.update(zip(chosen, batch([prompts[i] for i in chosen]), strict=True))
        return [found[i] for i in range(len(prompts))]

    return _timed(told, answer)


def _by_ray(told: Work) -> Done:
    """ray.data.llm with one engine on the CPU; its stages for template and tokens are its own."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    ray.init(num_cpus=_STAGES, log_to_driver=False, include_dashboard=False)
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=find_model(told.model).location,
            engine_kwargs=_peer_arguments(told),
            batch_size=told.vllm.max_num_seqs,
            concurrency=1,
            placement_group_config={"bundles": [{"CPU": 1}]},
            runtime_env={"env_vars": _peer_environment(told)},
            log_engine_metrics=False,
        ),
        preprocess=_for_ray,
        postprocess=_from_ray,
    )
    numbered = [(i, j, p) for i, prompts in enumerate(told.sets) for j, p in enumerate(prompts)]
    rows = [{"set": i, "place": j, "prompt": prompt.model_dump_json()} for i, j, prompt in numbered]
    found = processor(ray.data.from_items(rows)).take_all()
    found.sort(key=lambda row: (row["set"], row["place"]))
    started = min(row["left_at"] - row["taken_s"] for row in found)
    seconds = max(row["left_at"] for row in found) - started
    answers = [
        [(row["tokens"], row["text"]) for row in found if row["set"] == i]
        for i in range(len(told.sets))
    ]
    one = _done([seconds], [[answer for each in answers for answer in each]])
    return one.model_copy(update={"texts": tuple(tuple(t for _, t in each) for each in answers)})


def _for_ray(row: dict[str, Any]) -> dict[str, Any]:
    prompt = Prompt.model_validate_json(row["prompt"])
    parameters: dict[str, Any] = {"temperature": 0.0, "max_tokens": prompt.max_tokens}
    if prompt.grammar is not None:
        parameters["structured_outputs"] = {"grammar": prompt.grammar}
    return {
        "set": row["set"],
        "place": row["place"],
        "messages": prompt.chat(),
        "sampling_params": parameters,
    }


def _from_ray(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "set": row["set"],
        "place": row["place"],
        "tokens": row["num_generated_tokens"],
        "text": row["generated_text"],
        "taken_s": row["time_taken_llm"],
        "left_at": time.time(),
    }


if __name__ == "__main__":
    told_file, done_file = map(Path, sys.argv[1:3])
    done_file.write_text(work(Work.model_validate_json(told_file.read_text())).model_dump_json())
