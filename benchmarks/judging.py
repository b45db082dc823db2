"""Judging: 1,000 judgments of a judge that takes 200 ms, 32 at once, against the ideal of 1000 / 32 * 0.2 = 6.25 s.

    python -m benchmarks.judging

`stage` is the complete judging stage as `eva eval run` runs it (LiteLLM's client over HTTP, a durable journal entry per call, distilabel
pipeline, part files), less the time of the same stage over one question. `client` is the generator alone with its journal. `bare` is
LiteLLM's client alone in a loop of the same concurrency: the cost without saving anything. The judge is an asyncio server in a separate
process; `cpu` is processor time per call in milliseconds, which has to stay below 0.2 s / 32 = 6.25 ms for the ideal to be in reach.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.sides import Side, compare, options, parse
from eva_stages.core.rows import prompt_row
from eva_stages.core.stage import RUN, Input, Outside, RowStage, Use
from eva_stages.doctor import random_inputs

LATENCY = 0.2
REPLY = "Assistant A is somewhat better, for the reasons given above. My final verdict is: [[A>B]]"
TEMPLATE = "<|User Prompt|>\n{question_1}\n\n<|A|>\n{answer_1}\n<|end of A|>\n\n<|B|>\n{answer_2}\n<|end of B|>"


async def serve() -> None:
    """Answer every chat completion after `LATENCY`; prints the port."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REPLY}}
    usage = {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920}
    body = json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "judge", "choices": [choice], "usage": usage}
    ).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
                await asyncio.sleep(LATENCY)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def judge() -> Iterator[str]:
    """The judge's address."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.judging", "--serve"], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def questions(count: int) -> list[dict[str, Any]]:
    """Arena-Hard rows with answers of both sides, about 900 tokens a prompt as in the official files."""
    texts = iter(random_inputs.texts(3 * count, median=250, seed=2))
    rows = []
    for number in range(count):
        text = next(texts)
        row = prompt_row([{"role": "user", "content": text}], "benchmark")
        answers = {"responses": [next(texts)], "baseline": [next(texts)]}
        rows.append({**row, "question_id": str(number), "category": "arena-hard-v0.1", "turns": [text], **answers})
    return rows


def client(base: str, folder: Path, concurrency: int) -> Any:
    from eva_stages.models.litellm_generator import LiteLLMGenerator

    llm = LiteLLMGenerator(
        model="openai/judge", api_base=base, temperature=0.0, max_new_tokens=4096, concurrency=concurrency, journal=str(folder)
    )
    llm.load()
    llm.generate([[{"role": "user", "content": "Are you there?"}]], 1, [0])
    return llm


def conversations(count: int) -> list[list[dict[str, str]]]:
    conversation_list = []
    for row in questions(count // 2):
        for a, b in ((row["baseline"], row["responses"]), (row["responses"], row["baseline"])):
            user = TEMPLATE.format(question_1=row["turns"][0], answer_1=a[0], answer_2=b[0])
            conversation_list.append([{"role": "system", "content": "Compare."}, {"role": "user", "content": user}])
    return conversation_list


def run_client(base: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    llm, requests = client(base, folder, arguments.concurrency), conversations(arguments.judgments)
    start, cpu = time.perf_counter(), time.process_time()
    llm.generate(requests, 1, list(range(len(requests))))
    return {"seconds": time.perf_counter() - start, "cpu": 1000 * (time.process_time() - cpu) / len(requests)}


def run_bare(base: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    client(base, folder, arguments.concurrency)  # imports, and the first request
    import litellm

    requests = conversations(arguments.judgments)

    async def send_all() -> None:
        gate = asyncio.Semaphore(arguments.concurrency)

        async def send_one_request(messages: list[dict[str, str]]) -> None:
            async with gate:
                await litellm.acompletion(
                    model="openai/judge", messages=messages, api_base=base, api_key="none", temperature=0.0, max_tokens=4096
                )

        await asyncio.gather(*(send_one_request(messages) for messages in requests))

    start, cpu = time.perf_counter(), time.process_time()
    asyncio.run(send_all())
    return {"seconds": time.perf_counter() - start, "cpu": 1000 * (time.process_time() - cpu) / len(requests)}


def run_stage(base: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    settings = folder / "settings.yaml"
    settings.write_text(json.dumps({"system_prompt": "Compare.", "prompt_template": [TEMPLATE]}), encoding="utf-8")
    generator = Use(
        "eva_stages.models.litellm_generator:LiteLLMGenerator",
        {"model": "openai/judge", "api_base": base, "temperature": 0.0, "max_new_tokens": 4096},
        {"concurrency": arguments.concurrency, "journal": Input(RUN)},
    )
    all_questions, seconds = questions(arguments.judgments // 2), {}
    for name, rows in (("start", all_questions[:1]), ("all", all_questions)):
        answers = [{**row, "generator": "new"} for row in rows]
        baseline = [{**row, "responses": row["baseline"], "generator": "old"} for row in rows]
        sources = {
            "questions": random_inputs.write_source(rows, "questions", folder / f"{name}-questions"),
            "answers": random_inputs.write_source(answers, "responses", folder / f"{name}-answers"),
            "baseline": random_inputs.write_source(baseline, "responses", folder / f"{name}-baseline"),
        }
        step = {"llm": generator, "protocol": "arena_hard_v0.1", "prompts": Input("prompts")}
        stage = RowStage(
            "judge",
            0,
            {**sources, "prompts": Outside("settings.yaml", settings, "settings")},
            sources=tuple(sources),
            prefixes={"baseline": "baseline_"},
            steps=(Use("eva_stages.evaluation.judge:JudgeAnswers", step),),
            schema="judgments",
            rows_per_part=4 * arguments.concurrency,
        )
        manifest = random_inputs.run_stage(stage, folder / f"run-{name}")
        assert manifest["counts"]["judgments"] == 2 * len(rows)
        seconds[name] = manifest["seconds"]
    return {"seconds": seconds["all"] - seconds["start"], "start": seconds["start"]}


def with_judge(run: Callable[[str, Path, argparse.Namespace], dict[str, float]]) -> Side:
    def side(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
        with judge() as base:
            return run(base, folder, arguments)

    return side


SIDES = {"stage": with_judge(run_stage), "client": with_judge(run_client), "bare": with_judge(run_bare)}


def main() -> None:
    parser = options(__doc__, judgments=1000, concurrency=32)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parse(parser, SIDES)
    if arguments.serve:
        asyncio.run(serve())
    medians = compare("benchmarks.judging", list(SIDES), arguments.rounds, "seconds")
    ideal = arguments.judgments / arguments.concurrency * LATENCY
    for name, seconds in medians.items():
        print(f"{name} / ideal: {seconds / ideal:.3f} ({seconds:.2f} s, ideal {ideal:.2f} s)")


if __name__ == "__main__":
    main()
