"""The networks. Pictures are premultiplied RGBA in [-1, 1] (or RGB, where the data has no transparency).

G and D work in latents of the autoencoder (`--space latent`) or on pictures themselves (`--space pixels`); the same
classes serve both, with as many scales as the size asks for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT_CHANNELS = 16
REDUCTION = 8
"""A side of a picture is this many times that of its latents."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the networks of one model are built from.

    Attributes:
        channels: of a picture, 4 with transparency, else 3.
        resolution: side of a picture in pixels.
        space: `latent` or `pixels`, where G and D work.
        text: length of a caption's embedding, 0 without captions.
        styles: how many styles there are; one more stands for "any".
        code: length of z.
        width: channels of G at its first scale; D and A_G begin with half of it.
        concepts: slots of G's memory, 0 without captions; memory: numbers in a slot, for each style.
        mapping: units of the residual blocks that turn the condition and z into a style vector.
        autoencoder: channels of the autoencoder's decoder at its smallest scale.
    """

    channels: int = 4
    resolution: int = 64
    space: str = "latent"
    text: int = 384
    styles: int = 1
    code: int = 64
    concepts: int = 0
    memory: int = 512
    width: int = 128
    mapping: int = 512
    autoencoder: int = 144

    @property
    def size(self) -> int:
        """Side of what G makes and D judges."""
        return self.resolution // REDUCTION if self.space == "latent" else self.resolution

    @property
    def depth(self) -> int:
        """Channels of what G makes and D judges."""
        return LATENT_CHANNELS if self.space == "latent" else self.channels


def _conv(inside: int, outside: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2)


class Residual(nn.Module):
    """x + conv(act(conv(act(x)))), without normalisation; the last convolution starts at zero, as in R3GAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return out


class Encoder(nn.Module):
    """Pictures (N, channels, R, R) to latents (N, 16, R/8, R/8), not yet normalised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths = [shape.autoencoder // 5, shape.autoencoder * 2 // 5, shape.autoencoder * 4 // 5]
        layers: list[nn.Module] = []
        inside = shape.channels
        for width in widths:
            layers += [nn.Conv2d(inside, width, 4, 2, 1), Residual(width)]
            inside = width
        self.body = nn.Sequential(*layers, nn.SiLU(), _conv(inside, LATENT_CHANNELS, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Decoder(nn.Module):
    """Normalised latents (N, 16, R/8, R/8) to pictures (N, channels, R, R)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths = [shape.autoencoder, shape.autoencoder // 2, shape.autoencoder // 5]
        layers: list[nn.Module] = [_conv(LATENT_CHANNELS, widths[0])]
        for width, following, blocks in zip(widths, [*widths[1:], shape.channels], (2, 2, 1), strict=True):
            layers += [*(Residual(width) for _ in range(blocks)), nn.SiLU()]
            layers += [_conv(width, following * 4), nn.PixelShuffle(2)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Autoencoder(nn.Module):
    """The first half of A_D: trained on real pictures alone; D judges in its latents.

    `encode` normalises each latent channel by the mean and deviation measured over the training pictures, so that
    G aims at numbers of unit variance.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.register_buffer("mean", torch.zeros(1, LATENT_CHANNELS, 1, 1))
        self.register_buffer("deviation", torch.ones(1, LATENT_CHANNELS, 1, 1))

    def encode(self, pictures: Tensor) -> Tensor:
        out: Tensor = (self.encoder(pictures) - self.mean) / self.deviation
        return out

    def decode(self, latents: Tensor) -> Tensor:
        out: Tensor = self.decoder(latents * self.deviation + self.mean)
        return out


class _Dense(nn.Module):
    """A residual block of the mapping: x + linear(act(linear(norm(x))))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.silu(self.first(self.norm(x))))
        return out


class _Modulated(nn.Module):
    """A residual block (N, channels, s, s) whose inner channels are scaled and shifted by the style vector
    (N, style)."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels)
        self.style = nn.Linear(style, 2 * channels)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.style(w)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x)) * (1 + scale) + shift))
        return out


class Condition(nn.Module):
    """A caption's embedding (N, text), of unit length, and a style number (N,) as one vector (N, length); style
    `styles` means any."""

    def __init__(self, shape: Shape, style_length: int = 32) -> None:
        super().__init__()
        self.scale = math.sqrt(max(1, shape.text))
        self.style = nn.Embedding(shape.styles + 1, style_length)
        self.length = shape.text + style_length

    def forward(self, text: Tensor, style: Tensor) -> Tensor:
        return torch.cat([text * self.scale, self.style(style)], dim=1)


class Memory(nn.Module):
    """What each known concept looks like in each style, found by how near its caption is (attention over slots).

    A slot is learnt apart from the others, which dense layers over a caption's vector take far longer to do; a prompt
    in other words finds the nearest ones, a new thing a blend of its neighbours.
    """

    keys: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.styles = shape.styles
        self.register_buffer("keys", torch.zeros(shape.concepts, shape.text))
        self.values = nn.Parameter(torch.randn(shape.concepts, shape.styles, shape.memory))
        self.sharpness = nn.Parameter(torch.tensor(math.log(30.0)))

    def forward(self, text: Tensor, style: Tensor) -> Tensor:
        """(N, memory); style `styles` means any, and gives their mean."""
        with torch.autocast(text.device.type, enabled=False):  # a softmax of logits up to 30 and more: no bf16
            attention = (self.sharpness.exp() * text @ self.keys.T).softmax(1)
        found = (attention @ self.values.flatten(1)).view(len(text), self.styles, -1)
        found = torch.cat([found, found.mean(1, keepdim=True)], dim=1)
        return found[torch.arange(len(text), device=text.device), style]


class Generator(nn.Module):
    """G(z, caption, style): its memory gives a first draft, a mapping of residual dense blocks and convolutions
    under it make the picture. From z (N, code), text (N, text) and style (N,) to (N, depth, size, size).

    Dense blocks first because they are cheap: what they know is computed once a picture, not once a pixel.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.start = min(8, shape.size)
        self.condition = Condition(shape)
        width = shape.mapping
        self.memory = Memory(shape) if shape.concepts else None
        remembered = shape.memory if shape.concepts else 0
        self.draft = nn.Linear(remembered, shape.depth * shape.size**2) if remembered else None
        self.into = nn.Linear(self.condition.length + shape.code + remembered, width)
        self.mapping = nn.Sequential(*(_Dense(width, width * 3 // 2) for _ in range(2)), nn.LayerNorm(width))
        self.seeds = max(8, shape.width // 4)
        self.seed = nn.Linear(width, self.seeds * self.start**2)
        self.spread = _conv(self.seeds, shape.width, 1)
        blocks: list[nn.Module] = []
        ups: list[nn.Module] = []
        channels, size = shape.width, self.start
        counts = [2]
        while size < shape.size:
            following = max(32, channels // 2)
            ups.append(nn.Sequential(nn.SiLU(), _conv(channels, following * 4), nn.PixelShuffle(2)))
            counts.append(2)
            channels, size = following, size * 2
        channels = shape.width
        for scale, count in enumerate(counts):
            channels = channels if scale == 0 else max(32, channels // 2)
            blocks.append(nn.ModuleList(_Modulated(channels, width) for _ in range(count)))
        self.blocks = nn.ModuleList(blocks)
        self.ups = nn.ModuleList(ups)
        self.out = _conv(channels, shape.depth)
        if remembered:
            for parameter in self.out.parameters():
                nn.init.zeros_(parameter)

    def forward(self, z: Tensor, text: Tensor, style: Tensor) -> Tensor:
        fed = [self.condition(text, style), z]
        if self.memory is not None and self.draft is not None:
            found = self.memory(text, style)
            fed.append(found)
            draft = self.draft(found).view(-1, self.shape.depth, self.shape.size, self.shape.size)
        else:
            draft = 0
        w = F.silu(self.mapping(self.into(torch.cat(fed, dim=1))))
        x = self.spread(self.seed(w).view(-1, self.seeds, self.start, self.start))
        for scale, blocks in enumerate(self.blocks):
            if scale:
                x = self.ups[scale - 1](x)
            for block in blocks:  # type: ignore[attr-defined]  # it holds lists of modules
                x = block(x, w)
        out: Tensor = self.out(F.silu(x)) + draft
        return out

    @torch.no_grad()
    def remember(self, keys: Tensor, drawings: Tensor, concepts: Tensor, styles: Tensor) -> None:
        """Begin with what there is to see: the principal components of the drawings (N, depth, size, size) that show
        `concepts` (N,) in `styles` (N,). A style in which a concept was not drawn begins with the mean of the others.
        """
        if self.memory is None or self.draft is None:
            return
        self.memory.keys.copy_(keys)
        flat = drawings.flatten(1).double()
        mean = flat.mean(0)
        flat = flat - mean
        count = min(self.shape.memory, len(flat), flat.shape[1])
        # Not all components: of pictures of 64x64 in four colours there are 16,384, and they take hours.
        _, _, basis = torch.pca_lowrank(flat, count, center=False, niter=4)
        codes = flat @ basis
        scale = codes.square().mean().sqrt()
        found = torch.zeros(self.shape.concepts, self.shape.styles, count, dtype=torch.float64)
        seen = torch.zeros(self.shape.concepts, self.shape.styles, 1, dtype=torch.float64)
        found.index_put_((concepts, styles), codes / scale, accumulate=True)
        seen.index_put_((concepts, styles), torch.ones(len(codes), 1, dtype=torch.float64), accumulate=True)
        others = found.sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
        self.memory.values.zero_()
        self.memory.values[..., :count].copy_(torch.where(seen > 0, found / seen.clamp(min=1), others))
        self.draft.weight.zero_()
        self.draft.weight[:, :count].copy_(basis * scale)
        self.draft.bias.copy_(mean)


class Trunk(nn.Module):
    """Convolutions down to 4x4 or 2x2, for D and for A_G; gives the last features (N, width, s, s)."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        last = max(2, min(4, shape.size // 2))
        scales = int(math.log2(shape.size // last))
        channels = [max(32, width >> (scales - 1 - n)) for n in range(scales)]
        layers: list[nn.Module] = [_conv(shape.depth, channels[0])]
        for n, inside in enumerate(channels):
            outside = channels[n + 1] if n + 1 < scales else width * 2
            layers += [Residual(inside), nn.SiLU(), _conv(inside, outside, 3, 2)]
        self.width = width * 2
        layers += [Residual(self.width), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Discriminator(nn.Module):
    """D(x, caption, style): one logit (N,), the projection of the condition on the features and a free part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.trunk = Trunk(shape, shape.width // 2)
        self.condition = Condition(shape)
        flat = self.trunk.width * self.trunk.last**2
        self.pool = nn.Linear(flat, 384)
        self.free = nn.Linear(384, 1)
        self.project = nn.Sequential(nn.Linear(self.condition.length, 384), nn.SiLU(), nn.Linear(384, 384))

    def features(self, x: Tensor) -> Tensor:
        """(N, trunk.width, last, last) of x (N, depth, size, size)."""
        out: Tensor = self.trunk(x)
        return out

    def judge(self, features: Tensor, text: Tensor, style: Tensor) -> Tensor:
        """Logits (N,) of features, beside captions (N, text) and style numbers (N,)."""
        pooled = F.silu(self.pool(features.flatten(1)))
        along = (pooled * self.project(self.condition(text, style))).sum(1) / math.sqrt(pooled.shape[1])
        out: Tensor = self.free(pooled).squeeze(1) + along
        return out

    def forward(self, x: Tensor, text: Tensor, style: Tensor) -> Tensor:
        return self.judge(self.features(x), text, style)


class FeatureDecoder(nn.Module):
    """The second half of A_D: turns D's features (N, trunk.width, last, last) of real pictures back into what D saw
    (N, depth, size, size)."""

    def __init__(self, shape: Shape, trunk: Trunk) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, size = trunk.width, trunk.last
        while size < shape.size:
            following = max(32, channels // 2)
            layers += [_conv(channels, following * 4), nn.PixelShuffle(2), nn.SiLU(), Residual(following)]
            channels, size = following, size * 2
        self.body = nn.Sequential(*layers, _conv(channels, shape.depth))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.body(features)
        return out


class PictureEncoder(nn.Module):
    """A_G: q(z | picture) as mean and log variance (N, code), and a unit vector (N, 256) beside its caption's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.trunk = Trunk(shape, shape.width // 2)
        flat = self.trunk.width * self.trunk.last**2
        self.code = nn.Linear(flat, 2 * shape.code)
        self.picture = nn.Linear(flat, 256)
        self.caption = nn.Sequential(nn.Linear(max(1, shape.text), 512), nn.SiLU(), nn.Linear(512, 256))
        self.temperature = nn.Parameter(torch.tensor(math.log(10.0)))
        self.text = shape.text
        nn.init.zeros_(self.code.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = self.trunk(x).flatten(1)
        mean, log_variance = self.code(flat).chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 4), F.normalize(self.picture(flat), dim=1)

    def embed_caption(self, text: Tensor) -> Tensor:
        return F.normalize(self.caption(text * math.sqrt(max(1, self.text))), dim=1)


def parameters(module: nn.Module) -> int:
    """How many numbers a network has."""
    return sum(parameter.numel() for parameter in module.parameters())
