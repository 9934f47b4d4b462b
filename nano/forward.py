"""Training forward pass: transformers' weights and arithmetic, for batches of one grid.

It equals `Qwen3VLForConditionalGeneration` (a test compares them) but handles
all pictures or clips at once, masks packed turns from each other, and returns
the attention weights of the layers that training supervises.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .samples import MERGE, PATCH


def patches(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [B, 3, H, W] to normalised patches [B, H*W/256, 768], in order of 2 x 2 blocks."""
    b, _, h, w = pixels.shape
    size = PATCH * MERGE
    x = (
        pixels.to(dtype)
        .div_(127.5)
        .sub_(1.0)
        .view(b, 3, h // size, MERGE, PATCH, w // size, MERGE, PATCH)
    )
    return x.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(b, -1, 3 * PATCH * PATCH)


def _merge_order(grid: Tensor) -> Tensor:
    """[h, w, ...] to [h*w, ...] in the order of merged blocks."""
    h, w, *rest = grid.shape
    return (
        grid.view(h // MERGE, MERGE, w // MERGE, MERGE, *rest).transpose(1, 2).reshape(h * w, *rest)
    )


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def _block(block: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One layer of the vision tower on [B, patches, width]."""
    shape = (*x.shape[:2], 3, block.attn.num_heads, -1)
    q, k, v = block.attn.qkv(block.norm1(x)).view(shape).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v)
    x = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
    return x + block.mlp(block.norm2(x))


def vision_tower(visual: nn.Module, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The vision tower: uint8 [B, frames, 3, H, W] to merged tokens [B, N, text width].

    One frame is a still picture; frames of clips come in pairs, each of which is seen alone. Also
    returns the deepstack outputs, of the same shape.
    """
    config = visual.config
    batch, frames, _, height, width = pixels.shape
    h, w = height // PATCH, width // PATCH
    kernel, dtype = visual.patch_embed.proj.weight, visual.pos_embed.weight.dtype
    if frames == 1:  # both frames of a still picture are equal: the weights are summed over time
        x = F.linear(patches(pixels[:, 0], dtype), kernel.sum(2).flatten(1))
    else:
        first, second = (pixels[:, k::2].flatten(0, 1) for k in (0, 1))
        x = F.linear(patches(first, dtype), kernel[:, :, 0].flatten(1))
        x = x + F.linear(patches(second, dtype), kernel[:, :, 1].flatten(1))
    x = x + visual.patch_embed.proj.bias
    side = int(config.num_position_embeddings**0.5)
    table = visual.pos_embed.weight.view(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(table, (h, w), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
    x = x + _merge_order(grid)

    heads = config.num_heads
    dim = config.hidden_size // heads
    at = {"device": x.device}
    rates = 10000.0 ** -(torch.arange(0, dim // 2, 2, **at) / (dim // 2))
    rows, columns = torch.meshgrid(torch.arange(h, **at), torch.arange(w, **at), indexing="ij")
    angles = torch.cat(
        (_merge_order(rows)[:, None] * rates, _merge_order(columns)[:, None] * rates) * 2, -1
    )
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    deep = []
    for number, block in enumerate(visual.blocks):
        x = _block(block, x, cos, sin)
        if number in config.deepstack_visual_indexes:
            merger = visual.deepstack_merger_list[
                list(config.deepstack_visual_indexes).index(number)
            ]
            deep.append(merger(x.flatten(0, 1)).view(batch, -1, config.out_hidden_size))
    return visual.merger(x.flatten(0, 1)).view(batch, -1, config.out_hidden_size), deep


def attention_mask(turn: Tensor) -> Tensor:
    """Additive mask [B, 1, L, L]: causal, and within the shared prefix and the own turn only."""
    allowed = (turn[:, None, :] == 0) | (turn[:, None, :] == turn[:, :, None])
    mask = torch.zeros(allowed.shape, device=turn.device)
    return mask.masked_fill_(~allowed.tril(), -1e4)[:, None]


def _norm(layer: nn.Module, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], layer.weight, layer.variance_epsilon)


def _layer(
    layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, watched: bool
) -> tuple[Tensor, Tensor | None]:
    """One layer of the language model on [B, L, width]; if it is `watched`, also its attention
    [B, heads, L, L]."""
    attn, y = layer.self_attn, _norm(layer.input_layernorm, x)
    shape, groups = (*x.shape[:2], -1, attn.head_dim), attn.num_key_value_groups
    q = _norm(attn.q_norm, attn.q_proj(y).view(shape)).transpose(1, 2)
    k = _norm(attn.k_norm, attn.k_proj(y).view(shape)).transpose(1, 2)
    v = attn.v_proj(y).view(shape).transpose(1, 2).repeat_interleave(groups, 1)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin).repeat_interleave(groups, 1)
    # Computed explicitly where training supervises the weights.
    if watched:
        weights = (q @ k.transpose(-1, -2) * attn.scaling + mask).softmax(-1, dtype=torch.float32)
        mixed = weights.to(v.dtype) @ v
    else:
        weights = None
        mixed = F.scaled_dot_product_attention(q, k, v, mask, scale=attn.scaling)
    x = x + attn.o_proj(mixed.transpose(1, 2).flatten(2))
    return x + layer.mlp(_norm(layer.post_attention_layernorm, x)), weights


def language_model(
    text: nn.Module,
    embeds: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    deep: list[Tensor],
    places: Tensor,
    supervised_layers: tuple[int, ...] = (),
) -> tuple[Tensor, dict, list[Tensor]]:
    """The language model: embeddings [B, L, D] to final hidden states [B, L, D].

    `places` [N] are where the picture's tokens are, to which the deepstack outputs are added. Also
    returns the attention weights [B, heads, L, L] of the supervised layers, and the state after
    each layer.
    """
    rope = text.rotary_emb
    angles = position_ids[..., None].float() * rope.inv_freq
    mixed = angles[0].clone()
    for axis in (1, 2):  # rows and columns take every third rate, as Qwen3-VL interleaves them
        dims = slice(axis, rope.mrope_section[axis] * 3, 3)
        mixed[..., dims] = angles[axis][..., dims]
    angles = torch.cat((mixed, mixed), -1)[:, None]
    cos, sin, mask = (t.to(embeds.dtype) for t in (angles.cos(), angles.sin(), mask))
    x, weights, states = embeds, {}, []
    for number, layer in enumerate(text.layers):
        x, attention = _layer(layer, x, cos, sin, mask, number in supervised_layers)
        if attention is not None:
            weights[number] = attention
        if number < len(deep):
            x = x.index_add(1, places, deep[number])
        states.append(x)
    return _norm(text.norm, x), weights, states
