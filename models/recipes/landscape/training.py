"""What the three trainings share: picture tensors, the learning-rate schedule, EMA, resumable state."""

import math
import os
import pathlib
import time

import torch

SAVE_EVERY = 90.0  # seconds
LONGEST_STEP = 20.0  # seconds; what a step took beyond that was spent stopped


def to_tensor(pictures):
    """uint8 [n, h, w, 3] array or tensor -> float [-1, 1] [n, 3, h, w], channels last."""
    x = torch.as_tensor(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def to_pictures(x):
    """The inverse, rounded half to even: float [n, 3, h, w] -> uint8 [n, h, w, 3] tensor."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


def psnr(mse, peak=2.0):
    """Decibels for a mean square error of values that span `peak` (pictures in [-1, 1]: 2)."""
    return 10 * math.log10(peak * peak / mse)


def learning_rate(step, done, peak, warm_up=200, decay_from=0.5):
    """Linear warm-up, constant, then a half cosine to 1 % of the peak; `done` is a share of the run."""
    done = min(1.0, done)
    tail = max(0.0, (done - decay_from) / (1 - decay_from))
    cosine = 0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * tail)).item()
    return peak * min(1.0, (step + 1) / warm_up) * max(0.01, cosine)


class Ema:
    """An exponential moving average of parameters; warms up so that early steps do not linger."""

    def __init__(self, parameters, decay):
        self.live, self.decay, self.step = list(parameters), decay, 0
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self):
        self.step += 1
        keep = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - keep)

    @torch.no_grad()
    def swap(self):
        """Exchanges live and averaged weights (call again to undo)."""
        for p, m in zip(self.live, self.mean):
            held = p.detach().clone()
            p.copy_(m)
            m.copy_(held)


class Run:
    """A resumable training: counts steps and seconds, writes its state now and then, and a log.

    A process that was stopped (SIGSTOP) finds its time where it left it."""

    def __init__(self, folder, name, modules, optimiser, ema):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"{name}.pt"
        self.log_path = self.folder / f"{name}.log"
        self.modules, self.optimiser, self.ema = modules, optimiser, ema
        self.step, self.seconds, self.saved, self.seen = 0, 0.0, time.time(), time.time()
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            for module, weights in zip(modules, state["modules"]):
                module.load_state_dict(weights)
            optimiser.load_state_dict(state["optimiser"])
            ema.mean, ema.step = state["ema"], state["step"]
            self.step, self.seconds = state["step"], state["seconds"]
            torch.set_rng_state(state["rng"])
            self.log(f"resumed at step {self.step}")

    def elapsed(self):
        now = time.time()
        self.seconds += min(now - self.seen, LONGEST_STEP)
        self.seen = now
        return self.seconds

    def done(self, steps, minutes=None):
        """How much of the run is over: its steps or, where minutes are given, its time."""
        return self.elapsed() / (60 * minutes) if minutes else self.step / steps

    def log(self, text):
        line = f"{time.strftime('%H:%M:%S')} step {self.step} t={self.elapsed():.0f}s {text}"
        print(line, flush=True)
        with open(self.log_path, "a") as file:
            file.write(line + "\n")

    def save(self, force=False):
        """Writes the state if it is due; the file is replaced atomically. True if written."""
        if not force and time.time() - self.saved < SAVE_EVERY:
            return False
        state = {
            "modules": [m.state_dict() for m in self.modules],
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.mean,
            "step": self.step,
            "seconds": self.elapsed(),
            "rng": torch.get_rng_state(),
        }
        torch.save(state, self.path.with_suffix(".part"))
        os.replace(self.path.with_suffix(".part"), self.path)
        self.saved = time.time()
        return True


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are orthogonalised (Newton-Schulz).

    Takes convolution and linear weights; a convolution is the matrix [out, in * kernel]. Equal shapes
    are orthogonalised together. Biases, norms, embeddings and in/out layers belong to AdamW.
    """

    def __init__(self, parameters, lr, momentum=0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("momentum", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                update = torch.lerp(p.grad, mean, group["momentum"]).reshape(len(p), -1)
                shapes.setdefault(update.shape, []).append((p, update))
            for rows in shapes.values():
                directions = _orthogonal(torch.stack([update for _, update in rows]))
                scale = max(1.0, directions.shape[1] / directions.shape[2]) ** 0.5
                for (p, _), direction in zip(rows, directions):
                    p.sub_(direction.reshape(p.shape) * (group["lr"] * scale))


def _orthogonal(x, rounds=4):
    """A quintic Newton-Schulz iteration: each matrix's singular values are driven to about 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Optimiser:
    """Muon for inner matrices and AdamW for everything else, with one shared schedule.

    On a GPU the rates are tensors there, so that a captured step sees them change."""

    def __init__(self, named_parameters, adam_rate, muon_rate, weight_decay=1e-4):
        matrices, others = [], []
        for name, p in named_parameters:
            outer = any(
                k in name
                for k in ("conv_in", "conv_out", "embeddings", "time_emb", "time_embedding")
            )
            inner = p.ndim >= 2 and min(len(p), p[0].numel()) >= 8 and not outer
            (matrices if inner else others).append(p)
        on_gpu = others[0].is_cuda
        adam = torch.optim.AdamW(
            others,
            torch.tensor(adam_rate) if on_gpu else adam_rate,
            betas=(0.9, 0.99),
            weight_decay=weight_decay,
            fused=True,
            capturable=on_gpu,
        )
        self.parts = [(Muon(matrices, muon_rate), muon_rate), (adam, adam_rate)]
        if on_gpu:
            for part, rate in self.parts:
                for group in part.param_groups:
                    group["lr"] = torch.tensor(rate, device=others[0].device)

    def schedule(self, share):
        """The next steps take this share of the peak rates."""
        for part, rate in self.parts:
            for group in part.param_groups:
                if torch.is_tensor(group["lr"]):
                    group["lr"].fill_(rate * share)
                else:
                    group["lr"] = rate * share

    def step(self):
        """One update; forgets the gradients."""
        for part, _ in self.parts:
            part.step()
            part.zero_grad()

    def state_dict(self):
        return [part.state_dict() for part, _ in self.parts]

    def load_state_dict(self, states):
        for (part, _), state in zip(self.parts, states):
            part.load_state_dict(state)


def captured(step):
    """`step` as one CUDA graph: where kernels take microseconds, launching them one by one would take
    most of the time. Runs it four times; the result replays it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
