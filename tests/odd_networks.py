"""Small networks of kinds that are easily cut wrongly, for images of 1x8x8; factories of ``num_classes``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    """A body, global pooling and a linear head."""

    def __init__(self, num_classes: int, width: int, *body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*body), nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x).mean((2, 3)))


class Module(nn.Module):
    """Layers by name, and a function of them and the input."""

    def __init__(self, function: Any, **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def _padded(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.b(m.a(x)) + F.pad(x, (0, 0, 0, 0, 6, 6)))


def padded_shortcut(num_classes: int) -> nn.Module:
    widening = Module(_padded, a=block(12, 24), b=nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24)))
    return Net(num_classes, 24, block(1, 12), widening, block(24, 24))


def _zeros(m: Any, x: Tensor) -> Tensor:
    return m.a(x) + torch.cat([x, torch.zeros_like(x)], 1)


def concatenated_zeros(num_classes: int) -> nn.Module:
    return Net(num_classes, 16, block(1, 12), Module(_zeros, a=block(12, 24)), block(24, 16))


def residual(num_classes: int) -> nn.Module:
    inner = [nn.Sequential(block(16, width), block(width, 16)) for width in (20, 12)]
    return Net(num_classes, 16, block(1, 16), *(Module(lambda m, x: x + m.c(x), c=c) for c in inner))


def auxiliary(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        early = m.a(x)
        late: Tensor = m.head(m.b(early).mean((2, 3)))
        return late + 0.3 * m.second(early.mean((2, 3))) if m.training else late

    heads = {"head": nn.Linear(14, num_classes), "second": nn.Linear(12, num_classes)}
    return Module(forward, a=block(1, 12), b=block(12, 14), **heads)


def several_outputs(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        early = m.a(x)
        late = m.head(m.b(early).mean((2, 3)))
        return {"aux": m.second(early.mean((2, 3))), "logits": late} if m.training else late

    heads = {"head": nn.Linear(14, num_classes), "second": nn.Linear(12, num_classes)}
    return Module(forward, a=block(1, 12), b=block(12, 14), **heads)


def head_first(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(F.relu(m.b(m.a(x))).mean((2, 3)))

    return Module(forward, head=nn.Linear(10, num_classes), a=block(1, 14), b=nn.Conv2d(14, 10, 3, padding=1))


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def attention(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        t = _tokens(m.a(x))
        t = m.norm(t + m.attention(t, t, t, need_weights=False)[0])
        return m.head((t + m.down(F.gelu(m.up(t)))).mean(1))

    mlp = {"up": nn.Linear(24, 40), "down": nn.Linear(40, 24)}
    parts = {"attention": nn.MultiheadAttention(24, 3, batch_first=True), "norm": nn.LayerNorm(24), **mlp}
    return Module(forward, a=block(1, 24), **parts, head=nn.Linear(24, num_classes))


def encoder_layer(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(m.layer(_tokens(m.a(x))).mean(1))

    layer = nn.TransformerEncoderLayer(24, 3, 40, dropout=0.0, batch_first=True)
    return Module(forward, a=block(1, 24), layer=layer, head=nn.Linear(24, num_classes))


def fused_qkv(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        t = _tokens(m.a(x))
        count, length, width = t.shape
        q, k, v = m.qkv(t).reshape(count, length, 3, 3, width // 3).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count, length, width)
        t = t + m.out(mixed)
        return m.head((t + m.down(F.gelu(m.up(t)))).mean(1))

    parts = {"qkv": nn.Linear(24, 72), "out": nn.Linear(24, 24), "up": nn.Linear(24, 40), "down": nn.Linear(40, 24)}
    return Module(forward, a=block(1, 24), **parts, head=nn.Linear(24, num_classes))


class SelfAttention(nn.Module):
    """As many write it: the width is the input's, and the heads are counted by the module."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, length, width = x.shape
        parts = self.qkv(x).reshape(count, length, 3, self.num_heads, width // self.num_heads)
        mixed = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4).unbind(0))
        made: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, length, width))
        return made


class AttentionOfThree(nn.Module):
    """With a layer each for query, key and value, the shortcut and its norm inside, and the weights beside the outputs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n_head, self.size = heads, width // heads
        self.w_qs, self.w_ks, self.w_vs, self.fc = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        count, length, shortcut = len(q), q.shape[1], q
        layers = ((self.w_qs, q), (self.w_ks, k), (self.w_vs, v))
        q, k, v = (layer(x).view(count, length, self.n_head, self.size).transpose(1, 2) for layer, x in layers)
        weights = (q @ k.transpose(2, 3) / self.size**0.5).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(count, length, -1)
        return self.layer_norm(self.fc(mixed) + shortcut), weights


class AttentionByChunks(nn.Module):
    """With its norm inside, three chunks, and an output layer in a sequence."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm, self.to_qkv = heads, nn.LayerNorm(width), nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.1))

    def forward(self, *, x: Tensor) -> Tensor:
        q, k, v = (one.unflatten(2, (self.heads, -1)).transpose(1, 2) for one in self.to_qkv(self.norm(x)).chunk(3, -1))
        made: Tensor = self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return made


class AttentionOfFixedWidth(nn.Module):
    """It splits by a width of its own, as in GPT, and adds its inputs to its outputs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n_head, self.n_embd = heads, width
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, length, width = x.shape
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (one.view(count, length, self.n_head, width // self.n_head).transpose(1, 2) for one in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous().view(count, length, width)
        made: Tensor = x + self.c_proj(mixed)
        return made


class NormByHand(nn.Module):
    """LayerNorm over the channels of maps or tokens, as in ConvNeXt."""

    def __init__(self, width: int, axis: int) -> None:
        super().__init__()
        self.weight, self.bias, self.axis = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), axis
        self.normalized_shape = (width,)

    def forward(self, x: Tensor) -> Tensor:
        if self.axis == -1:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias)
        centred = x - x.mean(1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
        return self.weight[:, None, None] * scaled + self.bias[:, None, None]


class Responses(nn.Module):
    """Each channel's norm over the map against the mean of all channels' (ConvNeXt v2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        responses = x.norm(2, (1, 2), keepdim=True)
        return x + self.gamma * (x * (responses / (responses.mean(-1, keepdim=True) + 1e-6))) + self.beta


class Lengths(nn.Module):
    """RMSNorm by way of the vectors' lengths."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g, self.scale = nn.Parameter(torch.ones(width)), width**0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.scale * self.g


def norms_by_hand(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.up(m.tokens(m.mix(x).permute(0, 2, 3, 1)))
        y = m.down(m.lengths(m.responses(F.gelu(y))))
        return x + (m.gamma * y).permute(0, 3, 1, 2)

    def blocks(width: int) -> nn.Module:
        layers = {"mix": nn.Conv2d(width, width, 3, padding=1, groups=width), "tokens": NormByHand(width, -1)}
        layers |= {"up": nn.Linear(width, 32), "responses": Responses(32), "lengths": Lengths(32)}
        return Module(forward, **layers, down=nn.Linear(32, width), gamma=nn.Parameter(torch.full((width,), 1e-6)))

    down = nn.Sequential(NormByHand(12, 1), nn.Conv2d(12, 16, 2, 2))
    stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), NormByHand(12, 1))
    return Net(num_classes, 16, stem, blocks(12), down, blocks(16), NormByHand(16, 1))


class Blur(nn.Module):
    """Each channel through one fixed filter (Zhang 2019), a copy of it for each."""

    def __init__(self, width: int, counted: bool) -> None:
        super().__init__()
        self.channels, self.pad = width if counted else None, nn.ReflectionPad2d(1)
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", (row[:, None] * row).expand(width, 1, 3, 3).clone(), persistent=counted)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pad(x), self.filt, stride=2, groups=self.channels or x.shape[1])  # type: ignore[arg-type]


def blurred(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.relu(m.c(x) + m.shortcut(x))

    shortcut = nn.Sequential(Blur(12, True), nn.Conv2d(12, 16, 1))
    down = Module(forward, c=nn.Sequential(block(12, 20), Blur(20, False), nn.Conv2d(20, 16, 1)), shortcut=shortcut)
    return Net(num_classes, 16, block(1, 12), down, Blur(16, True), nn.Sequential(*block(16, 16)))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


def seen_by_means(num_classes: int) -> nn.Module:
    """Of what would be cut wrongly only means over channels are seen."""
    return Net(num_classes, 14, block(1, 12), Module(_zeros, a=block(12, 24)), Mean(), block(1, 14))


class AttentionOfMaps(nn.Module):
    """By convolutions of one pixel, with its norm inside."""

    def __init__(self, width: int, heads: int, *, apart: bool) -> None:
        super().__init__()
        self.num_heads, self.norm = heads, nn.GroupNorm(4, width)
        if apart:
            self.q, self.k, self.v = (nn.Conv2d(width, width, 1) for _ in range(3))
        else:
            self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, shape = self.norm(x), x.shape
        parts = (self.q(y), self.k(y), self.v(y)) if hasattr(self, "q") else self.qkv(y).chunk(3, 1)
        q, k, v = (part.reshape(shape[0], self.num_heads, -1, shape[2] * shape[3]).transpose(2, 3) for part in parts)
        made: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(shape))
        return made


def attention_of_maps(num_classes: int) -> nn.Module:
    def attending(heads: int, *, apart: bool) -> nn.Module:
        return Module(lambda m, x: x + m.attention(x), attention=AttentionOfMaps(16, heads, apart=apart))

    body = (block(1, 16), attending(4, apart=False), block(16, 16), attending(1, apart=True), block(16, 14))
    return Net(num_classes, 14, *body)


def _with_attention(classes: int, attention: nn.Module, attend: Any) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        t = attend(m, _tokens(m.a(x)))
        return m.head((t + m.down(F.gelu(m.up(t)))).mean(1))

    mlp = {"up": nn.Linear(24, 40), "down": nn.Linear(40, 24)}
    parts = {"attention": attention, "norm": nn.LayerNorm(24), **mlp}
    return Module(forward, a=block(1, 24), **parts, head=nn.Linear(24, classes))


def own_attention(num_classes: int) -> nn.Module:
    return _with_attention(num_classes, SelfAttention(24, 4), lambda m, t: t + m.attention(m.norm(t)))


def attention_of_three(num_classes: int) -> nn.Module:
    return _with_attention(num_classes, AttentionOfThree(24, 3), lambda m, t: m.attention(t, t, t)[0])


def attention_by_chunks(num_classes: int) -> nn.Module:
    return _with_attention(num_classes, AttentionByChunks(24, 2), lambda m, t: t + m.attention(x=t))


def attention_of_fixed_width(num_classes: int) -> nn.Module:
    return _with_attention(num_classes, AttentionOfFixedWidth(24, 4), lambda m, t: m.attention(m.norm(t)))


def crossed_attention_of_three(num_classes: int) -> nn.Module:
    """Keys and values are another branch's."""

    def forward(m: Any, x: Tensor) -> Any:
        tokens, others = _tokens(m.a(x)), _tokens(m.b(x))
        return m.head((tokens + m.attention(tokens, others, others)[0]).mean(1))

    parts = {"a": block(1, 24), "b": block(1, 24), "attention": AttentionOfThree(24, 4)}
    return Module(forward, **parts, head=nn.Linear(24, num_classes))


def crossed_attention(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        tokens, others = _tokens(m.a(x)), _tokens(m.b(x))
        return m.head((tokens + m.attention(tokens, others, others)[0]).mean(1))

    parts = {"a": block(1, 24), "b": block(1, 24), "attention": nn.MultiheadAttention(24, 4, batch_first=True)}
    return Module(forward, **parts, head=nn.Linear(24, num_classes))


def attention_of_two_scales(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        made = m.qkv(x)
        heads = torch.cat([made, m.wider(made)], 1).reshape(len(x), -1, 12, x[0, 0].numel())
        query, key, value = heads.transpose(-1, -2).chunk(3, -1)
        seen = F.relu(query) @ (F.relu(key).transpose(-1, -2) @ value)
        return m.joined(seen.transpose(-1, -2).reshape(len(x), -1, *x.shape[2:]))

    layers = {"qkv": nn.Conv2d(12, 24, 1), "wider": nn.Conv2d(24, 24, 3, padding=1, groups=24), "joined": block(16, 14, 1)}
    return Net(num_classes, 14, block(1, 12), Module(forward, **layers), block(14, 14))


def vision_transformer(num_classes: int) -> nn.Module:
    made = torchvision.models.VisionTransformer(8, 4, 2, 3, 24, 36, num_classes=num_classes)
    made.conv_proj = nn.Conv2d(1, 24, 4, 4)
    return made


def shifted_windows(num_classes: int) -> nn.Module:
    made = torchvision.models.SwinTransformer([1, 1], 12, [1, 2], [2, 3], [2, 2], num_classes=num_classes)
    made.features[0][0] = nn.Conv2d(1, 12, 1)
    return made


def positions(num_classes: int) -> nn.Module:
    learned = Module(lambda m, x: x + m.p, p=nn.Parameter(0.1 * torch.randn(1, 16, 8, 8)))
    return Net(num_classes, 12, block(1, 16), learned, block(16, 12))


def class_token(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        t = _tokens(m.a(x))
        t = torch.cat([m.token.expand(len(t), -1, -1), t], 1) + m.place
        t = t + m.down(F.gelu(m.up(m.norm(t))))
        return m.head(t[:, 0] + t.mean(1))

    free = {"token": nn.Parameter(torch.zeros(1, 1, 24)), "place": nn.Parameter(0.1 * torch.randn(1, 65, 24))}
    mlp = {"norm": nn.LayerNorm(24), "up": nn.Linear(24, 40), "down": nn.Linear(40, 24)}
    return Module(forward, a=block(1, 24), **free, **mlp, head=nn.Linear(24, num_classes))


def fixed_scale(num_classes: int) -> nn.Module:
    scaled = Module(lambda m, x: x + m.c(x) * m.g.view(1, 20, 1, 1), c=block(20, 20), g=nn.Parameter(torch.ones(20)))
    return Net(num_classes, 12, block(1, 20), scaled, block(20, 12))


def fixed_view(num_classes: int) -> nn.Module:
    flat = Module(lambda _m, x: x.view(len(x), 14, -1).unsqueeze(-1))
    return Net(num_classes, 14, block(1, 10), block(10, 14), flat)


def _halves(m: Any, x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    count, channels, height, width = x.shape
    both = torch.cat([first, m.c(second)], 1).view(count, 2, channels // 2, height, width)
    return both.transpose(1, 2).reshape(count, channels, height, width)


def shuffled(num_classes: int) -> nn.Module:
    inner = [nn.Sequential(block(12, 12, 1), block(12, 12, 3, 12), block(12, 12, 1)) for _ in range(2)]
    return Net(num_classes, 20, block(1, 24), *(Module(_halves, c=c) for c in inner), block(24, 20, 1))


def grouped_shuffle(num_classes: int) -> nn.Module:
    moved = [Module(lambda _m, x: F.channel_shuffle(x, 3)), nn.ChannelShuffle(2)]
    return Net(num_classes, 14, block(1, 24), moved[0], block(24, 24), moved[1], block(24, 14))


def crossed_split(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat([m.b(second), first, m.a(first)], 1)

    return Net(num_classes, 14, block(1, 20), Module(forward, a=block(10, 8), b=block(10, 12)), block(30, 14))


def gated_halves(num_classes: int) -> nn.Module:
    def forward(_m: Any, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return first * torch.sigmoid(second)

    return Net(num_classes, 14, block(1, 24), Module(forward), block(12, 14))


def split_stream(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        first, second, third = x.chunk(3, 1)
        first = m.a(first)
        return x + torch.cat([first, m.b(first + second), third], 1)

    return Net(num_classes, 14, block(1, 22), Module(forward, a=block(8, 8, 3, 8), b=block(8, 8, 3, 8)), block(22, 14))


def ghost(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        made = m.a(x)
        return x + torch.cat([made, m.b(made)], 1)

    return Net(num_classes, 14, block(1, 24), Module(forward, a=block(24, 12), b=block(12, 12, 3, 12)), block(24, 14))


def pixel_shuffle(num_classes: int) -> nn.Module:
    return Net(num_classes, 12, block(1, 14), nn.Conv2d(14, 32, 3, padding=1), nn.PixelShuffle(2), block(8, 12))


def concatenated(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return torch.cat([x, m.a(x), m.b(x)], 1)

    joined = Module(forward, a=block(14, 8, 1), b=block(14, 12))
    return Net(num_classes, 16, block(1, 14), joined, nn.BatchNorm2d(34), block(34, 16, 1))


def other_norms(num_classes: int) -> nn.Module:
    plain = [nn.BatchNorm2d(14, affine=False), nn.PReLU(14), nn.Conv2d(14, 16, 3), nn.InstanceNorm2d(16, affine=True)]
    layer = Module(lambda m, x: m.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(12))
    untracked = nn.BatchNorm2d(16, track_running_stats=False)
    return Net(num_classes, 12, nn.Conv2d(1, 14, 3), *plain, nn.Conv2d(16, 16, 1), untracked, nn.Conv2d(16, 12, 3), layer)


def parallel(num_classes: int) -> nn.Module:
    return nn.DataParallel(depthwise(num_classes))


def uneven_split(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        first, second = x.split([6, 14], 1)
        return torch.cat([m.a(first), m.b(second)], 1)

    return Net(num_classes, 14, block(1, 20), Module(forward, a=block(6, 8), b=block(14, 10)), block(18, 14))


def weight_norm(num_classes: int) -> nn.Module:
    layers = [parametrizations.weight_norm(nn.Conv2d(i, o, 3, padding=1)) for i, o in ((1, 14), (14, 12))]
    return Net(num_classes, 12, layers[0], nn.ReLU(), layers[1])


def spectral_norm(num_classes: int) -> nn.Module:
    layers = [parametrizations.spectral_norm(nn.Conv2d(i, o, 3, padding=1)) for i, o in ((1, 14), (14, 12))]
    return Net(num_classes, 12, layers[0], nn.ReLU(), layers[1])


def old_weight_norm(num_classes: int) -> nn.Module:
    first = nn.utils.weight_norm(nn.Conv2d(1, 14, 3, padding=1))
    return Net(num_classes, 12, first, nn.ReLU(), nn.utils.spectral_norm(nn.Conv2d(14, 12, 3, padding=1)))


def lstm(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(m.rnn(m.b(m.a(x)).mean(2).transpose(1, 2))[0][:, -1])

    layers = {"a": block(1, 14), "b": block(14, 12), "rnn": nn.LSTM(12, 16, batch_first=True)}
    return Module(forward, **layers, head=nn.Linear(16, num_classes))


def gru(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(m.rnn(m.b(m.a(x)).mean(2).transpose(1, 2))[0][:, -1])

    layers = {"a": block(1, 14), "b": block(14, 12), "rnn": nn.GRU(12, 16, batch_first=True)}
    return Module(forward, **layers, head=nn.Linear(16, num_classes))


def conv1d(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(F.relu(m.b(F.relu(m.a(x.flatten(2))))).mean(2))

    layers = {"a": nn.Conv1d(1, 14, 5), "b": nn.Conv1d(14, 12, 5)}
    return Module(forward, **layers, head=nn.Linear(12, num_classes))


def conv3d(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(F.relu(m.b(F.relu(m.a(x.unsqueeze(2))))).mean((2, 3, 4)))

    layers = {"a": nn.Conv3d(1, 14, (1, 3, 3)), "b": nn.Conv3d(14, 12, (1, 3, 3))}
    return Module(forward, **layers, head=nn.Linear(12, num_classes))


def transposed(num_classes: int) -> nn.Module:
    up = nn.ConvTranspose2d(14, 18, 2, 2)
    return Net(num_classes, 12, block(1, 16), nn.Conv2d(16, 14, 2, 2), up, nn.ReLU(), block(18, 12))


def frozen(num_classes: int) -> nn.Module:
    return Net(num_classes, 12, block(1, 14), block(14, 12)).requires_grad_(False)


def frozen_stem(num_classes: int) -> nn.Module:
    net = Net(num_classes, 12, block(1, 14), block(14, 14), block(14, 12), block(12, 12))
    net.body[0].requires_grad_(False)
    net.body[2].requires_grad_(False)
    return net


def tied(num_classes: int) -> nn.Module:
    net: Any = Net(num_classes, 14, block(1, 12), block(12, 12), block(12, 12), block(12, 14), block(14, 14))
    net.body[2][0].weight = net.body[1][0].weight
    return net


def two_names(num_classes: int) -> nn.Module:
    inner = block(12, 12)
    return Net(num_classes, 14, block(1, 12), inner, inner, block(12, 14))


def grouped(num_classes: int) -> nn.Module:
    return Net(num_classes, 24, block(1, 16), block(16, 32, 3, 4), block(32, 32, 1), block(32, 32, 3, 8), block(32, 24, 1))


def depth_multiplier(num_classes: int) -> nn.Module:
    return Net(num_classes, 20, block(1, 12), block(12, 24, 3, 12), block(24, 20, 1))


def depthwise(num_classes: int) -> nn.Module:
    return Net(
        num_classes, 20, block(1, 16), block(16, 16, 3, 16), block(16, 24, 1), block(24, 24, 3, 24), block(24, 20, 1)
    )


def group_norm(num_classes: int) -> nn.Module:
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1)]
    return Net(num_classes, 16, *layers, nn.GroupNorm(6, 24), nn.ReLU(), nn.Conv2d(24, 16, 1))


def one_channel(num_classes: int) -> nn.Module:
    gated = Module(lambda m, x: x * torch.sigmoid(m.g(x)), g=nn.Conv2d(20, 1, 1))
    return Net(num_classes, 14, block(1, 20), gated, block(20, 14))


def squeeze(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return x * torch.sigmoid(m.b(F.relu(m.a(x.mean((2, 3), keepdim=True)))))

    return Net(num_classes, 14, block(1, 20), Module(forward, a=nn.Conv2d(20, 8, 1), b=nn.Conv2d(8, 20, 1)), block(20, 14))


def sigmoids(num_classes: int) -> nn.Module:
    return Net(num_classes, 20, nn.Conv2d(1, 18, 3), nn.Sigmoid(), nn.Conv2d(18, 20, 3), nn.Sigmoid(), nn.Conv2d(20, 20, 3))


def flattened(num_classes: int) -> nn.Module:
    body = [block(1, 10), nn.MaxPool2d(2), block(10, 12), nn.Flatten(), nn.Linear(12 * 16, 24), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(24, num_classes))


def without_gradient(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        with torch.no_grad():
            early = m.a(x)
        return m.head(m.c(m.b(early)).mean((2, 3)))

    return Module(forward, a=block(1, 12), b=block(12, 14), c=block(14, 12), head=nn.Linear(12, num_classes))


def versioned(num_classes: int) -> nn.Module:
    class Versioned(Net):
        _version = 2

        def _load_from_state_dict(self, state: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
            if local_metadata.get("version") != 2:
                raise ValueError("version should be set to 2")
            super()._load_from_state_dict(state, prefix, local_metadata, *rest)

    return Versioned(num_classes, 12, block(1, 14), block(14, 12))


def nothing_to_cut(num_classes: int) -> nn.Module:
    fixed = Module(lambda _m, x: x.view(len(x), 12, -1).unsqueeze(-1))
    return Net(num_classes, 12, block(1, 12), fixed)


def hungry(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        room = torch.empty(5 * 10**9, dtype=torch.uint8)
        return m.head(m.a(x).mean((2, 3))) + 0 * len(room)

    return Module(forward, a=block(1, 14), head=nn.Linear(14, num_classes))


def joined_norm(num_classes: int) -> nn.Module:
    both = Module(lambda m, x: torch.cat([m.a(x), m.b(x)], 1), a=nn.Conv2d(12, 12, 3, padding=1), b=nn.Conv2d(12, 12, 1))
    return Net(num_classes, 14, block(1, 12), both, nn.GroupNorm(2, 24), nn.ReLU(), block(24, 14))


def norm_of_halves(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat([second, m.c(first)], 1)

    halves = Module(forward, c=nn.Conv2d(12, 12, 3, padding=1))
    return Net(num_classes, 16, block(1, 24), halves, nn.GroupNorm(4, 24), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1))


def begins_with_nothing(num_classes: int) -> nn.Module:
    branch = Module(lambda m, x: x + m.c(x).flip(1), c=nn.Conv2d(14, 14, 3, padding=1, bias=False))
    nn.init.normal_(branch.c.weight, std=1e-8)  # type: ignore[union-attr]
    return Net(num_classes, 14, block(1, 14), branch, block(14, 14))


def lazy(num_classes: int) -> nn.Module:
    first = [nn.LazyConv2d(12, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(14, 3)]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(num_classes))


def experts(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        seen = m.a(x).mean((2, 3))
        chosen, out = m.gate(seen).argmax(1), seen.new_zeros(len(x), 14)
        for number, expert in enumerate(m.experts):
            if len(at := (chosen == number).nonzero().flatten()):
                out = out.index_copy(0, at, expert(seen[at]))
        return m.head(out)

    some = nn.ModuleList(nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 14)) for _ in range(6))
    return Module(forward, a=block(1, 16), gate=nn.Linear(16, 6), experts=some, head=nn.Linear(14, num_classes))


def learned_queries(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        seen = m.a(x).flatten(2).transpose(1, 2)
        asked = m.queries.expand(len(x), -1, -1)
        asked = asked + m.attention(asked, seen, seen, need_weights=False)[0]
        return m.head((asked + m.down(F.relu(m.up(asked)))).flatten(1))

    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    layers = {"up": nn.Linear(16, 32), "down": nn.Linear(32, 16), "head": nn.Linear(48, num_classes)}
    return Module(forward, a=block(1, 16), queries=nn.Parameter(torch.randn(1, 3, 16)), attention=attention, **layers)


def fusion_weights(num_classes: int) -> nn.Module:
    weighed = Module(
        lambda m, x: m.a(x) * m.w[0] + m.b(x) * m.w[1], a=block(12, 14), b=block(12, 14, 5), w=nn.Parameter(torch.ones(2))
    )
    return Net(num_classes, 14, block(1, 12), weighed, block(14, 14))


def own_constant(num_classes: int) -> nn.Module:
    blur = Module(lambda m, x: F.conv2d(x, m.k.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1]))
    blur.k = torch.ones(1, 1, 3, 3) / 9  # no buffer, so it stays in single precision
    return Net(num_classes, 14, block(1, 12), blur, block(12, 16), block(16, 14))


class Forgetful(Net):
    """Its ``train`` keeps a layer in evaluation mode, and doesn't return the network."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.body[0].eval()


def forgetful(num_classes: int) -> nn.Module:
    return Forgetful(num_classes, 14, block(1, 12), block(12, 14))


def faint_branch(num_classes: int) -> nn.Module:
    """Four layers that begin with small weights and no normalisation, between them channels in another order."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return x + m.d(F.relu(m.c(F.relu(m.b(F.relu(m.a(x)).flip(1))))))

    a, b, c, d = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((12, 14), (14, 14), (14, 14), (14, 12)))
    for layer in (a, b, c, d):
        nn.init.normal_(layer.weight, std=0.001)
    return Net(num_classes, 12, block(1, 12), Module(forward, a=a, b=b, c=c, d=d))


def half_zero(num_classes: int) -> nn.Module:
    """The half that gates a branch begins with zeros, so that nothing of the branch is seen."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return x + m.d(m.c(x).flip(1)) * torch.tanh(m.g(x)[:, :12])

    gates = nn.Conv2d(12, 24, 1)
    with torch.no_grad():
        gates.weight[:12], gates.bias[:12] = 0, 0  # type: ignore[index]
    layers = {"c": block(12, 14), "d": nn.Conv2d(14, 12, 1), "g": gates}
    return Net(num_classes, 12, block(1, 12), Module(forward, **layers), block(12, 12))


def keeps_features(num_classes: int) -> nn.Module:
    """It keeps what it saw as attributes, for plots."""

    def forward(m: Any, x: Tensor) -> Tensor:
        m.seen = m.c(x)
        m.maps = {"all": [m.seen.square()]}
        return m.seen * 2

    return Net(num_classes, 14, block(1, 12), Module(forward, c=block(12, 16)), block(16, 14))


def spaced_names(num_classes: int) -> nn.Module:
    layers = nn.ModuleDict({"block 1": block(1, 12), "block 2": block(12, 14)})
    return Module(
        lambda m, x: m.head(m.d["block 2"](m.d["block 1"](x)).mean((2, 3))), d=layers, head=nn.Linear(14, num_classes)
    )


def frozen_statistics(num_classes: int) -> nn.Module:
    norms = torchvision.ops.FrozenBatchNorm2d(12), nn.InstanceNorm2d(16, affine=True, track_running_stats=True)
    layers = nn.Conv2d(1, 12, 3), norms[0], nn.ReLU(), nn.Conv2d(12, 16, 3), norms[1], nn.ReLU(), block(16, 14)
    return Net(num_classes, 14, *layers)


def other_order_in_training(num_classes: int) -> nn.Module:
    """An auxiliary head that sees the channels in another order."""

    def forward(m: Any, x: Tensor) -> Tensor:
        seen = m.a(x)
        made = m.head(m.b(seen).mean((2, 3)))
        return made + m.second(m.c(F.dropout(seen.flip(1), training=m.training)).mean((2, 3))) if m.training else made

    heads = {"head": nn.Linear(14, num_classes), "second": nn.Linear(14, num_classes)}
    return Module(forward, a=block(1, 12), b=block(12, 14), c=block(12, 14), **heads)


def named_inputs(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(input=m.b(input=F.channel_shuffle(m.a(input=x), 3)).mean((2, 3)))

    return Module(forward, a=nn.Conv2d(1, 12, 3), b=nn.Conv2d(12, 14, 3), head=nn.Linear(14, num_classes))


def viewed(num_classes: int) -> nn.Module:
    """It views what a convolution puts out, which images that are channels-last in memory don't allow."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.classifier(m.features(x).view(x.size(0), -1))

    features = nn.Sequential(block(1, 8), nn.MaxPool2d(2), block(8, 12))
    classifier = nn.Sequential(nn.Dropout(), nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, num_classes))
    return Module(forward, features=features, classifier=classifier)


def layers_in_a_list(num_classes: int) -> nn.Module:
    """A layer that is no module of the network: no state dict has it."""
    net = Module(lambda m, x: m.body(m.layers[0](x)), body=Net(num_classes, 14, block(6, 12), block(12, 14)))
    net.layers = [nn.Conv2d(1, 6, 3, padding=1)]  # type: ignore[assignment]
    return net


def exits_early(num_classes: int) -> nn.Module:
    """Where the first head is sure of all images, the rest doesn't run; untrained it never is."""

    def forward(m: Any, x: Tensor) -> Tensor:
        seen = m.a(x)
        early = m.first(seen.mean((2, 3)))
        sure = not m.training and bool((early.softmax(1).amax(1) > 0.9).all())
        return early if sure else m.second(m.b(seen).mean((2, 3)))

    heads = {"first": nn.Linear(12, num_classes), "second": nn.Linear(14, num_classes)}
    return Module(forward, a=block(1, 12), b=block(12, 14), **heads)


def squeezed(num_classes: int) -> nn.Module:
    """With one channel left, the axis of channels would go, too."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.body(x).mean((2, 3), keepdim=True).squeeze())

    return Module(forward, body=nn.Sequential(block(1, 12), block(12, 16)), head=nn.Linear(16, num_classes))


def behind_a_threshold(num_classes: int) -> nn.Module:
    """A branch that nothing passes in an untrained network."""
    branch = Module(lambda m, x: x + m.d(F.relu(m.c(x).flip(1) - 3)), c=nn.Conv2d(12, 14, 1), d=nn.Conv2d(14, 12, 1))
    return Net(num_classes, 12, block(1, 12), branch, block(12, 12))


def double_inside(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(F.relu(m.d(m.b(m.a(x)).mean((2, 3)).double())).float())

    layers = {"d": nn.Linear(14, 16).double(), "head": nn.Linear(16, num_classes)}
    return Module(forward, a=block(1, 12), b=block(12, 14), **layers)


def tells_features(num_classes: int) -> nn.Module:
    """Its features come with the logits."""

    def forward(m: Any, x: Tensor) -> Any:
        seen = m.b(m.a(x))
        return {"logits": m.head(seen.mean((2, 3))), "features": [seen]}

    return Module(forward, a=block(1, 12), b=block(12, 14), head=nn.Linear(14, num_classes))


def rms_norm(num_classes: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        tokens = _tokens(m.a(x))
        return m.head(m.last(tokens + m.down(F.gelu(m.up(m.first(tokens))))).mean(1))

    layers = {"up": nn.Linear(24, 40), "down": nn.Linear(40, 24), "head": nn.Linear(24, num_classes)}
    return Module(forward, a=nn.Conv2d(1, 24, 2, 2), first=nn.RMSNorm(24), last=nn.RMSNorm(24), **layers)


def glu(num_classes: int) -> nn.Module:
    gated = Module(lambda m, x: F.glu(m.c(x), dim=1), c=nn.Conv2d(12, 28, 1))
    return Net(num_classes, 14, block(1, 10), nn.Conv2d(10, 24, 3, padding=1), nn.GLU(1), gated, block(14, 14))


def filters_of_channels(num_classes: int) -> nn.Module:
    """A parameter in no layer, of whose axes others are as long as a layer's outputs once some have gone."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return x * m.w.mean((1, 2, 3)).view(1, -1, 1, 1)

    scaled = Module(forward, w=nn.Parameter(torch.randn(10, 5, 3, 2) * 0.3 + 1))
    return Net(num_classes, 14, block(1, 10), scaled, block(10, 14), block(14, 14))


def sampled_in_training(num_classes: int) -> nn.Module:
    """A layer runs always, and is used while training alone."""

    def forward(m: Any, x: Tensor) -> Tensor:
        seen = m.a(x).mean((2, 3))
        mean, spread = m.mean(seen), m.spread(seen).exp()
        return m.head(F.relu(m.d(mean + torch.randn_like(mean) * spread if m.training else mean)))

    layers = {"mean": nn.Linear(12, 10), "spread": nn.Linear(12, 10), "d": nn.Linear(10, 16)}
    return Module(forward, a=block(1, 12), head=nn.Linear(16, num_classes), **layers)


def bilinear_pooling(num_classes: int) -> nn.Module:
    """Each channel is multiplied by each."""

    def forward(m: Any, x: Tensor) -> Tensor:
        seen = m.body(x).flatten(2)
        return m.head((seen @ seen.transpose(1, 2)).flatten(1))

    return Module(forward, body=nn.Sequential(block(1, 12), block(12, 10)), head=nn.Linear(100, num_classes))


def cells(num_classes: int) -> nn.Module:
    """A recurrent cell, called for each row."""

    def forward(m: Any, x: Tensor) -> Tensor:
        state = (torch.zeros(len(x), 16), torch.zeros(len(x), 16))
        for row in m.a(x).mean(2).permute(2, 0, 1):
            state = m.r(row, state)
        return m.head(state[0])

    return Module(forward, a=block(1, 12), r=nn.LSTMCell(12, 16), head=nn.Linear(16, num_classes))


def _added_where_alike(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    return x + y if x.shape == y.shape else y


def shortcut_by_width(num_classes: int) -> nn.Module:
    """A shortcut wherever widths are equal, as they become by some cuts."""
    blocks = [Module(_added_where_alike, c=block(i, o)) for i, o in ((10, 10), (10, 14), (14, 14), (14, 20))]
    return Net(num_classes, 20, block(1, 10), *blocks)


def tokens_as_channels(num_classes: int) -> nn.Module:
    """Half of the features are gated by a convolution whose channels are the tokens, which are as many as the features."""

    def gated(m: Any, x: Tensor) -> Tensor:
        one, other = m.up(x).chunk(2, dim=-1)
        return x + m.down(one * m.mix(other))

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.b(m.a(_tokens(m.stem(x)))).mean(1))

    halves = {
        name: Module(gated, up=nn.Linear(16, 40), mix=nn.Conv1d(16, 16, 1), down=nn.Linear(20, 16)) for name in ("a", "b")
    }
    return Module(forward, stem=nn.Conv2d(1, 16, 2, 2), head=nn.Linear(16, num_classes), **halves)


def two_halves_by_view(num_classes: int) -> nn.Module:
    """A view that only an even number of channels fits."""

    def forward(_: Any, x: Tensor) -> Tensor:
        halves = x.view(2 * len(x), -1, *x.shape[2:])
        return (halves * halves.mean((2, 3), keepdim=True).sigmoid()).view(x.shape)

    return Net(num_classes, 14, block(1, 16), Module(forward), block(16, 14), block(14, 14))


def pooled_pairs(num_classes: int) -> nn.Module:
    """Two channels become one: the length of pairs, and maxout."""

    def lengths(_: Any, x: Tensor) -> Tensor:
        return (x.view(len(x), x.shape[1] // 2, 2, *x.shape[2:]).square().sum(2) + 1e-6).sqrt()

    def maxout(m: Any, x: Tensor) -> Tensor:
        return m.last(m.l(m.body(x).mean((2, 3))).view(len(x), -1, 2).max(2)[0])

    body = nn.Sequential(block(1, 28), Module(lengths), block(14, 12))
    return Module(maxout, body=body, l=nn.Linear(12, 32), last=nn.Linear(16, num_classes))


def averaged_shortcut(num_classes: int) -> nn.Module:
    """Pairs of channels are averaged to be added to half as many."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.c(x) + x.view(len(x), x.shape[1] // 2, 2, *x.shape[2:]).mean(2)

    return Net(num_classes, 14, block(1, 16), Module(forward, c=block(16, 8)), block(8, 14))


def compiled(num_classes: int) -> nn.Module:
    made = Net(num_classes, 14, block(1, 12), block(12, 14))
    made.compile(backend="eager")
    return made


def compiled_whole(num_classes: int) -> nn.Module:
    made: nn.Module = torch.compile(Net(num_classes, 14, block(1, 12), block(12, 14)), backend="eager")
    return made


def two_tasks(num_classes: int) -> nn.Module:
    """Another head, of two outputs, in training."""

    def forward(m: Any, x: Tensor) -> Any:
        seen = m.body(x).mean((2, 3))
        return (m.head(seen), m.domain(seen)) if m.training else m.head(seen)

    return Module(
        forward, body=nn.Sequential(block(1, 12), block(12, 14)), head=nn.Linear(14, num_classes), domain=nn.Linear(14, 2)
    )


def hooked(num_classes: int) -> nn.Module:
    """A hook puts features where the network that it was made for looks for them, and copies don't."""
    seen = {}

    def forward(m: Any, x: Tensor) -> Tensor:
        made = m.b(m.a(x))
        return m.head(torch.cat([made.mean((2, 3)), m.kept.pop("a").mean((2, 3))], 1))

    made = Module(forward, a=block(1, 12), b=block(12, 14), head=nn.Linear(26, num_classes), kept=seen)
    made.a.register_forward_hook(lambda _, __, output: seen.update(a=output))
    return made


def closure_over_itself(num_classes: int) -> nn.Module:
    made = Module(
        lambda m, x: m.head(m.whole(x).mean((2, 3))), a=block(1, 12), b=block(12, 14), head=nn.Linear(14, num_classes)
    )
    made.whole = lambda x: made.b(made.a(x))
    return made


def attention_along_channels(num_classes: int) -> nn.Module:
    """A convolution along the channels (ECA): each hangs on its neighbours."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.c(x)
        along = m.along(y.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return F.relu(x + y * along.sigmoid())

    c = nn.Sequential(block(16, 16), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
    return Net(num_classes, 16, block(1, 16), Module(forward, c=c, along=nn.Conv1d(1, 1, 3, padding=1, bias=False)))


def split_attention(num_classes: int) -> nn.Module:
    """Two halves of a convolution's channels, weighed against each other (ResNeSt)."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.c(x)
        halves = y.reshape(len(y), 2, y.shape[1] // 2, *y.shape[2:])
        scores = m.up(F.relu(m.down(halves.sum(1).mean((2, 3), keepdim=True))))
        weights = scores.view(len(y), 1, 2, -1).transpose(1, 2).softmax(1).reshape(len(y), -1, 1, 1)
        return (halves * weights.reshape(len(y), 2, y.shape[1] // 2, 1, 1)).sum(1)

    layers = {"c": block(12, 32, groups=2), "down": nn.Conv2d(16, 8, 1), "up": nn.Conv2d(8, 32, 1)}
    return Net(num_classes, 14, block(1, 12), Module(forward, **layers), block(16, 14))


def fails_in_training(num_classes: int) -> nn.Module:
    """A result that its gradient needs is written over."""

    def forward(_: Any, x: Tensor) -> Tensor:
        y = x.exp()
        y[:, :4] += 1
        return y

    return Net(num_classes, 14, block(1, 12), Module(forward), block(12, 14))


def runs_nothing(num_classes: int) -> nn.Module:
    """A layer that no image passes through."""
    made = Net(num_classes, 14, block(1, 12), block(12, 14))
    made.projector = nn.Linear(14, 20)
    return made
