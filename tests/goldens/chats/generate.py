"""Records tiny random Qwen3 and ERNIE 4.5 folders with tokenizer and chat template, and what
transformers writes in conversations with and without thinking.

    python generate.py            # writes the folders beside this file

Beside what transformers saves each folder holds chat.json: the ids of every prompt and the greedy ids
after it, up to the first end; for the prompts of ids alone without regard to ends.
"""

import json
import pathlib
import random
import shutil
import sys

import torch
import transformers

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from chat_models import CASES, QUESTIONS, chat_ids, save_folder  # noqa: E402
from text_models import MIN_MARGIN, write_versions  # noqa: E402

TOKENS = 40
ENDS = (2, 0)  # as save_folder says


@torch.inference_mode()
def greedy(model, prompt, ends):
    """None when a choice is too close to call."""
    ids, cache, step = [], None, list(prompt)
    while len(ids) < TOKENS and not (ids and ids[-1] in ends):
        result = model(torch.tensor([step]), past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        best = result.logits[0, -1].float().topk(2)
        if best.values[0] - best.values[1] < MIN_MARGIN:
            return None
        step = [int(best.indices[0])]
        ids += step
    return ids


def record(name):
    folder = HERE / name
    draw = random.Random(7)
    long = [draw.randrange(5, 300) for _ in range(600)]
    plain = [long, [*long[:560], 9, 8], [11, 12, 13] * 40]
    seed = 0
    while True:
        seed += 1
        shutil.rmtree(folder, ignore_errors=True)
        save_folder(folder, dtype=torch.bfloat16, seed=seed, **CASES[name])
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        chats = []
        for question in QUESTIONS:
            for thinking in (None, True, False):
                switch = {} if thinking is None else {"enable_thinking": thinking}
                ids = chat_ids(folder, question, **switch)
                written = greedy(model, ids, ENDS)
                chats.append(
                    {"question": question, "thinking": thinking, "ids": ids, "written": written}
                )
        texts = [{"ids": ids, "written": greedy(model, ids, ())} for ids in plain]
        if all(one["written"] for one in chats + texts):
            break
    text = json.dumps({"chats": chats, "texts": texts}, ensure_ascii=False)
    (folder / "chat.json").write_text(text + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(name, "seed", seed, size, "bytes", [len(chat["written"]) for chat in chats])


def main():
    torch.set_num_threads(1)
    for name in ("qwen3", "ernie"):
        record(name)
    write_versions(HERE)


if __name__ == "__main__":
    main()
