"""What is asked for and when. A trace is a list of arrivals, dicts in order of at_s whose keys
arrival.h lists; besides, `part` names the part of the scenario that an arrival belongs to."""

import json
import random

# Of an arrival, what does not change how long its answer takes on an idle server.
NOT_SHAPE = ("at_s", "deadline_s", "repeat", "part", "seed", "prompt")

PROMPTS = (
    "一幅水墨画，江上孤舟，远处青山两座，天上一轮红日",
    "一幅水墨画，山中小屋，屋前一棵树",
    "一幅水墨画，远山，天上一轮明月",
    "一幅水墨画，江上孤舟",
)


def picture(model, steps, side, guidance):
    return {
        "kind": "picture",
        "model": model,
        "steps": steps,
        "width": side,
        "height": side,
        "guidance": guidance,
        "sampler": "ddim",
    }


def text(model, prompt_tokens, max_tokens):
    return {
        "kind": "text",
        "model": model,
        "prompt_tokens": prompt_tokens,
        "max_tokens": max_tokens,
    }


def painting(model):
    """A picture that the model paints by tokens, of the size that it knows."""
    return {"kind": "picture", "model": model}


def captioning(model, file):
    return {"kind": "caption", "model": model, "file": str(file)}


def shape(arrival):
    """Arrivals of one shape are the same work."""
    return tuple(sorted((k, v) for k, v in arrival.items() if k not in NOT_SHAPE))


def one(job, seed, **more):
    """An arrival of `job` with a prompt of its own."""
    arrival = job | {"at_s": 0.0, "seed": seed} | more
    if job["kind"] == "picture":
        arrival["prompt"] = PROMPTS[seed % len(PROMPTS)]
    return arrival


def poisson(mix, rate, seconds, seed, start=0.0, **more):
    """Arrivals at `rate` a second from `start` on; `mix` is a list of (weight, job). The same
    arguments give the same trace."""
    draw = random.Random(f"poisson {seed}")
    weights, jobs = [weight for weight, _ in mix], [job for _, job in mix]
    trace, at = [], draw.expovariate(rate)
    while at < seconds:
        (job,) = draw.choices(jobs, weights)
        trace.append(one(job, draw.randrange(1 << 40), at_s=round(start + at, 6), **more))
        at += draw.expovariate(rate)
    return trace


def burst(mix, count, seed):
    """`count` arrivals at once, shares as in `mix` as nearly as whole numbers allow."""
    draw = random.Random(f"burst {seed}")
    total = sum(weight for weight, _ in mix)
    jobs, owed = [], 0.0
    for weight, job in mix:
        owed += count * weight / total
        while len(jobs) + 0.5 <= owed:
            jobs.append(job)
    draw.shuffle(jobs)
    return [one(job, draw.randrange(1 << 40)) for job in jobs]


def mean_of_mix(mix, value):
    """The expectation of value(job)."""
    return sum(weight * value(job) for weight, job in mix) / sum(weight for weight, _ in mix)


def dump(trace):
    return "".join(json.dumps(arrival, ensure_ascii=False) + "\n" for arrival in trace)


def read(path):
    """A recorded trace, sorted by time. ValueError names the line at fault."""
    trace = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            arrival = json.loads(line)
            if not isinstance(arrival["at_s"], int | float) or "kind" not in arrival:
                raise ValueError("at_s and kind are needed")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        trace.append(arrival)
    return sorted(trace, key=lambda arrival: arrival["at_s"])
