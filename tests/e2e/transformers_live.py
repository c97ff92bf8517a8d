"""What transformers itself computes, where it is installed (scripts/setup --reference)."""

import importlib.util

import pytest
from calls import pixels
from PIL import Image

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


def chinese_clip_scores(folder, prompt, pictures):
    """How well each of the encoded pictures fits the prompt, by the ChineseCLIPModel in `folder`."""
    import torch
    import transformers
    from transformers.models.chinese_clip import image_processing_pil_chinese_clip as pil

    model = transformers.ChineseCLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = pil.ChineseCLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
    images = [Image.fromarray(pixels(picture)) for picture in pictures]
    with torch.inference_mode():
        text = model.get_text_features(torch.tensor([tokenizer(prompt).input_ids])).pooler_output
        prepared = processor(images, return_tensors="pt").pixel_values
        features = model.get_image_features(prepared).pooler_output
        return torch.nn.functional.cosine_similarity(text, features).numpy()
