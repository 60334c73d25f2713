"""One tiny CLIP with random weights, in transformers' classes and under open_clip's names."""

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from fmri_models.generation.clip_targets import ClipTargets

START, END = 49406, 49407

OPEN_CLIP_CONFIG = {
    "embed_dim": 12,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 9, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def tiny_clip(seed=0):
    """A transformers CLIP with the sizes of OPEN_CLIP_CONFIG; gains and biases are jittered so that each one counts."""
    torch.manual_seed(seed)
    towers = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=12, hidden_act="quick_gelu", **towers)
    text = CLIPTextConfig(
        vocab_size=49408, max_position_embeddings=9, projection_dim=12, hidden_act="quick_gelu", eos_token_id=END,
        bos_token_id=START, pad_token_id=END, **towers,
    )  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return clip


def open_clip_weights(clip):
    """The weights of a transformers CLIP under open_clip's names (the layout of its published files)."""
    own = clip.state_dict()
    names = {
        "logit_scale": own["logit_scale"],
        "text_projection": own["text_projection.weight"].T,
        "token_embedding.weight": own["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": own["text_model.embeddings.position_embedding.weight"],
        "visual.class_embedding": own["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": own["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": own["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": own["visual_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        names |= {
            f"ln_final.{kind}": own[f"text_model.final_layer_norm.{kind}"],
            f"visual.ln_pre.{kind}": own[f"vision_model.pre_layrnorm.{kind}"],
            f"visual.ln_post.{kind}": own[f"vision_model.post_layernorm.{kind}"],
        }
        for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
            for layer in range(2):
                source, target = f"{tower}.encoder.layers.{layer}", f"{prefix}transformer.resblocks.{layer}"
                attention = [own[f"{source}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                names |= {
                    f"{target}.attn.in_proj_{kind}": torch.cat(attention),
                    f"{target}.attn.out_proj.{kind}": own[f"{source}.self_attn.out_proj.{kind}"],
                    f"{target}.ln_1.{kind}": own[f"{source}.layer_norm1.{kind}"],
                    f"{target}.ln_2.{kind}": own[f"{source}.layer_norm2.{kind}"],
                    f"{target}.mlp.c_fc.{kind}": own[f"{source}.mlp.fc1.{kind}"],
                    f"{target}.mlp.c_proj.{kind}": own[f"{source}.mlp.fc2.{kind}"],
                }
    return {name: value.clone().contiguous() for name, value in names.items()}


def captions():
    """Ids of three captions of different lengths."""
    ids = torch.full((3, 9), 0)
    for row, words in enumerate(([320, 1125], [320, 2368, 530, 518], [736, 1000, 2000, 3000, 4000, 5000, 600])):
        ids[row, : len(words) + 2] = torch.tensor([START, *words, END])
    return ids


def tiny_tokenizer():
    """CLIP's tokenizer with a vocabulary of letters: a word is its letters, the last one with an end mark."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ids = {token: index for index, token in enumerate(tokens[:-2])} | {tokens[-2]: START, tokens[-1]: END}
    return CLIPTokenizer(vocab=ids, merges=[])


def tiny_targets(seed=0, **options):
    """`ClipTargets` of the tiny CLIP; another seed, other weights."""
    clip = tiny_clip(seed)
    vision = CLIPVisionModelWithProjection(clip.config.vision_config)
    text = CLIPTextModelWithProjection(clip.config.text_config)
    for tower in (vision, text):
        own = clip.state_dict()
        tower.load_state_dict({name: own[name] for name in tower.state_dict()})
    return ClipTargets(vision, text, tiny_tokenizer(), encoder_name="tiny", **options)
