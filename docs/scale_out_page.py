"""Page on scaling out: `python -m docs.scale_out_page` renews the tables in docs/scale-out.md, of
kinds of servers (`qwenvl/servers/kinds.yaml`) and of the throughput that was measured last."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_vl_suite.qwenvl.servers.kinds import ServerKind

PAGE = Path(__file__).with_name("scale-out.md")
RESULTS = PAGE.parent / "performance" / "results.jsonl"
BENCHMARK, REQUESTS = "server-replicas", 96

_THINKING = {
    "chat_template_kwargs": "sent apart; on, off",
    "reasoning_effort": "sent apart; on, off",
    "none": "sent apart",
}


def kinds_table() -> str:
    from qwen_vl_suite.qwenvl.servers import abilities
    from qwen_vl_suite.qwenvl.servers.kinds import kinds

    rows = [
        (
            f"{kind.title} (`{kind.name}`)",
            abilities.pictures(kind),
            ", ".join(abilities.held_to(kind)) or "–",
            _THINKING[kind.thinking],
            "yes" if kind.logprobs == "raw" else "–",
            _videos(kind),
            "–" if kind.audio == "none" else "yes",
        )
        for kind in kinds().values()
    ]
    head = ("server", "pictures", "held to", "thoughts", "log-probabilities", "videos", "sounds")
    return _table(head, rows)


def _videos(kind: ServerKind) -> str:
    if kind.video == "pictures":
        return "pictures"
    return "frames with times" + (f" (`{kind.video_switch}`)" if kind.video_switch else "")


def throughput_table(results: Path = RESULTS) -> str:
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in results.read_text("utf-8").splitlines()
    ]
    (found,) = (line for line in lines if line["benchmark"] == BENCHMARK)
    first = found["seconds"][0]
    rows = [
        (str(count), f"{seconds:.2f} s", f"{REQUESTS / seconds:.0f}", f"{first / seconds:.2f}×")
        for count, seconds in zip(found["sizes"], found["seconds"], strict=True)
    ]
    machine = found["machine"]
    head = ("replicas", f"{REQUESTS} requests", "a second", "against one")
    return f"{_table(head, rows)}\n\n{machine['processor']}, threads: {machine['threads']}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    made = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([made[0], f"|{'---|' * len(head)}", *made[1:]])


def page() -> str:
    """The page as it is, with new tables."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("throughput", throughput_table()), ("kinds", kinds_table())):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    from benchmarks import load_pack

    load_pack()
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
