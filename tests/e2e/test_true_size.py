"""Models of the published sizes, with random weights made here: they load within their memory and
paint within 24 GiB. Takes minutes and 10 GB of disk and memory: runs with --long."""

import json
import pathlib
import shutil
import struct
import threading

import numpy as np
import pytest
from calls import generate, paint, picture_request, pixels, text_request
from hanmo_server import Server
from observe import until

pytestmark = pytest.mark.long

TOKENIZER_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"山水江河春夏秋冬日月"]


def write_safetensors(path, shapes, seed):
    """Random float16 weights, streamed: norms near 1, the rest small enough not to overflow."""
    draw = np.random.default_rng(seed)
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {
            "dtype": "F16",
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            values = draw.standard_normal(int(np.prod(shape)), dtype=np.float32)
            fan_in = int(np.prod(shape[1:])) or 1
            if "norm" in name.lower() or len(shape) == 1:
                values = values * 0.01 + (1 if name.endswith("weight") else 0)
            else:
                values *= 0.5 / np.sqrt(fan_in)
            file.write(values.astype(np.float16).tobytes())
    return offset


@pytest.fixture(scope="module")
def taiyi(tmp_path_factory):
    """(repository, bytes of its weights in float16) of Taiyi-Stable-Diffusion-1B's shapes."""
    diffusers = pytest.importorskip("diffusers", reason="scripts/setup --reference installs it")
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")

    repository = tmp_path_factory.mktemp("true")
    folder = repository / "taiyi-1b"
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(cross_attention_dim=768, sample_size=64)
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        text = transformers.BertModel(transformers.BertConfig(vocab_size=21128))
    total = 0
    for seed, (name, file, module) in enumerate(
        (
            ("unet", "diffusion_pytorch_model.safetensors", unet),
            ("vae", "diffusion_pytorch_model.safetensors", vae),
            ("text_encoder", "model.safetensors", text),
        )
    ):
        shapes = {
            k: tuple(v.shape) for k, v in module.state_dict().items() if v.dtype.is_floating_point
        }
        total += write_safetensors(folder / name / file, shapes, seed)
        config = module.config.to_dict() if name == "text_encoder" else dict(module.config)
        (folder / name / "config.json").write_text(json.dumps(config, default=str))
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    words = TOKENIZER_WORDS + [f"[unused{i}]" for i in range(21128 - len(TOKENIZER_WORDS))]
    (tokenizer / "vocab.txt").write_text("\n".join(words) + "\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 512})
    )
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps(
            {
                "_class_name": "PNDMScheduler",
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "skip_prk_steps": True,
                "set_alpha_to_one": False,
                "steps_offset": 1,
                "num_train_timesteps": 1000,
            }
        )
    )
    (folder / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "StableDiffusionPipeline",
                "scheduler": ["diffusers", "PNDMScheduler"],
                "text_encoder": ["transformers", "BertModel"],
                "tokenizer": ["transformers", "BertTokenizer"],
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
            }
        )
    )
    yield repository, total
    shutil.rmtree(folder)


class MemoryWatch(threading.Thread):
    """The highest anonymous + shared memory of a server's workers, seen every few milliseconds."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self._server, self._end = server, threading.Event()
        self.peak = 0
        self.start()

    def run(self):
        while not self._end.wait(0.003):
            now = sum(self._memory(pid) for pid in self._server.worker_pids())
            self.peak = max(self.peak, now)

    @staticmethod
    def _memory(pid):
        try:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return 0
        return sum(
            int(line.split()[1]) << 10
            for line in status.splitlines()
            if line.startswith(("RssAnon:", "RssShmem:"))
        )

    def stop(self):
        self._end.set()
        self.join()
        return self.peak


def test_loads_and_paints_within_its_memory(taiyi, tmp_path):
    repository, stored = taiyi
    server = Server(repository, "--dtype=bfloat16", log=tmp_path / "server.log")
    try:
        watch = MemoryWatch(server)
        until(
            lambda: server.check("taiyi-1b") == 1 or "failed" in server.log(),
            "the load",
            patience=600,
        )
        load_peak = watch.stop()
        described = server.describe("taiyi-1b")
        assert described.state_detail == "" and described.dtype == "bfloat16"
        print(
            f"stored {stored / 2**30:.2f} GiB, in bfloat16 {described.weight_bytes / 2**30:.2f} GiB,"
            f" peak while loading {load_peak / 2**30:.2f} GiB: "
            f"{load_peak / described.weight_bytes:.3f} of its weights"
        )
        assert described.weight_bytes >= 0.97 * stored  # the VAE's encoder may stay away
        assert load_peak <= 1.15 * stored
        watch = MemoryWatch(server)
        for size in (256, 512):
            picture = generate(
                server,
                picture_request(
                    "山水",
                    model="taiyi-1b",
                    width=size,
                    height=size,
                    steps=2,
                    guidance=7.5,
                    seed=1,
                    sampler="ddim",
                ),
                timeout=600,
            )
            image = pixels(picture.outputs[0].picture.data)
            assert image.shape == (size, size, 3) and image.std() > 1
            seconds = picture.timings.total.ToTimedelta().total_seconds()
            print(f"{size} x {size}: {seconds:.1f} s for 2 steps with guidance")
        peak = watch.stop()
        print(f"peak while painting {peak / 2**30:.2f} GiB")
        assert peak <= 24 << 30
        again = picture_request(
            "山水",
            model="taiyi-1b",
            width=256,
            height=256,
            steps=2,
            guidance=7.5,
            seed=1,
            sampler="ddim",
        )
        assert paint(server, again).data == paint(server, again).data
    finally:
        server.close()


def test_a_110m_gpt2_writes(tmp_path, start_server):
    transformers = pytest.importorskip(
        "transformers", reason="scripts/setup --reference installs it"
    )
    torch = pytest.importorskip("torch")
    folder = tmp_path / "repository" / "gpt2-110m"
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    shapes = {
        k: tuple(v.shape)
        for k, v in model.state_dict().items()
        if v.dtype.is_floating_point and k != "lm_head.weight"
    }
    write_safetensors(folder / "model.safetensors", shapes, 1)
    (folder / "config.json").write_text(
        json.dumps(model.config.to_dict() | {"architectures": ["GPT2LMHeadModel"]}, default=str)
    )
    server = start_server("--dtype=bfloat16", repository=folder.parent)
    request = text_request(model="gpt2-110m", temperature=0, max_tokens=64, ignore_eos=True)
    request.token_ids.ids.extend([1, 2, 3])
    response = generate(server, request)
    assert len(response.outputs[0].text.token_ids) == 64
    seconds = response.timings.total.ToTimedelta().total_seconds()
    print(f"64 tokens in {seconds:.2f} s")
