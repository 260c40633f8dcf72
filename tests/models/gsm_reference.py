"""GSMamba step by step, as slow and plain as possible: the reference that the network must match.

Nothing is shared with the network but its weights. Flows are composed for each window, every tap is
projected by itself, every mask is drawn token by token. ``mistake`` makes one wrong on purpose:
each of them is easily made, and each changes the output.
"""

import math
from itertools import pairwise

import torch
from torch.nn import functional as F

from vsrm_cli.ops.selective_scan import selective_scan

# What goes wrong, and by how much at most the authors' own network (set B) then differs.
MISTAKES = {
    "directions averaged": 1.1e-1,
    "one direction only": 1.4e-1,
    "tokens frame by frame": 1.8e-1,
    "windows in parallel": 2.2e-1,
    "flows not turned around": 5.8e-2,
    "flows composed from the anchor on": 2.3e-2,
    "scatter repeats the border": 8.1e-2,
    "anchor not aligned": 1.9e-1,
    "padding masked": 1.5e-1,
    "question coded like the taps": 4.3e-2,
    "temperature of language models": 6.2e-2,
    "nearest pixel first": 7.0e-2,
    "values without their places": 2.1e-1,
    "skips without scale": 1.5e-1,
    "steeper slope before the upsampler": 3.9e-2,
    "GELU by tanh": 8.3e-5,
}


class GSMReference:
    """The network's computation on its weights alone.

    Args:
        state: State dict of a released-form network (two-step upsampler).
        heads: Heads of all attention.
        radius: Frames on each side of an anchor.
        scan: Called like `selective_scan`.
        mistake: One of `MISTAKES`, or None.
    """

    def __init__(self, state, *, heads, radius, scan=selective_scan, mistake=None):
        self.state, self.heads, self.radius = state, heads, radius
        self.scan, self.mistake = scan, mistake
        self.layers = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("prop_layers."))
        self.blocks = 1 + max(int(k.split(".")[5]) for k in state if ".attn_blocks." in k)

    def is_wrong(self, mistake):
        assert mistake in MISTAKES
        return self.mistake == mistake

    def linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, x, name):
        weight = self.state[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.state[f"{name}.bias"])

    def conv(self, x, name):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.conv3d(x, weight, bias, padding=(0, 1, 1))

    def gelu(self, x):
        return F.gelu(x, approximate="tanh" if self.is_wrong("GELU by tanh") else "none")

    # Section 3: the whole.

    def forward(self, clip, onward, back):
        """(B, T, 3, H, W) and the flows t to t+1 and t+1 to t, to (B, T, 3, 4H, 4W)."""
        x = clip.transpose(1, 2)  # (B, 3, T, H, W)
        first = self.conv(x, "conv_first")
        f = first
        for number in range(self.layers):
            f = self.layer(f, onward, back, number)
        g = self.linear(self.norm(f.movedim(1, -1), "norm"), "conv_after_body").movedim(-1, 1)
        f = first + g
        slope = 0.1 if self.is_wrong("steeper slope before the upsampler") else 0.01
        f = F.leaky_relu(self.conv(f, "conv_before_upsample.0"), slope)
        for name in ("upsample.0", "upsample.5"):
            f = self.conv(f, name).transpose(1, 2)
            f = F.leaky_relu(F.pixel_shuffle(f, 2), 0.1).transpose(1, 2)
        f = self.conv(self.conv(f, "upsample.10"), "conv_last").transpose(1, 2)
        base = [
            F.interpolate(frame, scale_factor=4, mode="bilinear", align_corners=False)
            for frame in clip.unbind(1)
        ]
        return f + torch.stack(base, 1)

    # Section 5: a layer and its windows.

    def layer(self, f, onward, back, number):
        """(B, C, T, H, W) to the same shape, running backwards."""
        if number % 2 == 1 and not self.is_wrong("flows not turned around"):
            onward, back = back.flip(1), onward.flip(1)
        name = f"prop_layers.{number}.stage"
        y = self.attention_stage(f.movedim(1, -1), name).movedim(-1, 1).clone()
        unread = y.clone()
        last, r = y.shape[2] - 1, self.radius
        for anchor in range(last + 1):
            spots = [min(max(anchor + k, 0), last) for k in range(-r, r + 1)]
            source = unread if self.is_wrong("windows in parallel") else y
            clip = torch.stack([source[:, :, t] for t in spots], 2)
            still = torch.zeros_like(onward[:, 0])
            pairs = [a if a != b else None for a, b in pairwise(spots)]
            U = [still if t is None else onward[:, t] for t in pairs]
            V = [still if t is None else back[:, t] for t in pairs]
            out = self.block(clip, U, V, f"{name}.mamba_block")
            for k in range(-r, r + 1):
                if 0 <= anchor + k <= last:
                    y[:, :, anchor + k] = out[:, :, k + r]
        return (f + y).flip(2)

    # Section 6: attention in windows.

    def attention_stage(self, x, name):
        """(B, T, H, W, C) to the same shape."""
        for b in range(self.blocks):
            block = f"{name}.attn_blocks.blocks.{b}"
            x = x + self.window_attention(self.norm(x, f"{block}.norm1"), b % 2 == 1, block)
            n = self.norm(x, f"{block}.norm2")
            gate = self.gelu(self.linear(n, f"{block}.mlp.fc11"))
            x = x + self.linear(gate * self.linear(n, f"{block}.mlp.fc12"), f"{block}.mlp.fc2")
        return x

    def window_attention(self, a, is_shifted, block):
        size = a.shape[1:4]
        window = [min(n, w) for n, w in zip(size, (2, 8, 8), strict=True)]
        shift = [
            s if is_shifted and n > w else 0
            for n, w, s in zip(size, (2, 8, 8), (1, 4, 4), strict=True)
        ]
        (t, h, w), (dt, dh, dw) = window, shift
        a = F.pad(a, (0, 0, 0, -size[2] % w, 0, -size[1] % h, 0, -size[0] % t))
        real = F.pad(a.new_ones(size), (0, -size[2] % w, 0, -size[1] % h, 0, -size[0] % t))
        padded = real.shape
        regions = torch.zeros(padded)
        for axis, (n, wn, s) in enumerate(zip(padded, window, shift, strict=True)):
            place = torch.arange(n)
            part = (place >= n - wn).float() + (place >= n - s).float() if s else place * 0.0
            regions = regions * 3 + part.view([-1 if i == axis else 1 for i in range(3)])
        a, real = (
            torch.roll(v, (-dt, -dh, -dw), d) for v, d in ((a, (1, 2, 3)), (real, (0, 1, 2)))
        )
        out = torch.zeros_like(a)
        for i in range(0, padded[0], t):
            for j in range(0, padded[1], h):
                for k in range(0, padded[2], w):
                    cut = (slice(i, i + t), slice(j, j + h), slice(k, k + w))
                    tokens = a[(slice(None), *cut)].flatten(1, 3)
                    region = regions[cut].flatten()
                    mask = torch.where(region[:, None] == region, 0.0, -100.0)
                    if self.is_wrong("padding masked"):
                        mask = mask.masked_fill(real[cut].flatten() == 0, -1e9)
                    attended = self.attend(tokens, window, mask, f"{block}.attn")
                    out[(slice(None), *cut)] = attended.unflatten(1, window)
        out = torch.roll(out, (dt, dh, dw), (1, 2, 3))
        return out[:, : size[0], : size[1], : size[2]]

    def attend(self, tokens, window, mask, name):
        qkv = self.linear(tokens, f"{name}.qkv_self").unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        places = torch.tensor(
            [
                (t, y, x)
                for t in range(window[0])
                for y in range(window[1])
                for x in range(window[2])
            ]
        )
        d = places[:, None] - places[None]
        row = (d[..., 0] + 1) * 225 + (d[..., 1] + 7) * 15 + d[..., 2] + 7
        bias = self.state[f"{name}.relative_position_bias_table"][row].permute(2, 0, 1)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias + mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.linear(mixed, f"{name}.proj")

    # Section 7: gather, Mamba, scatter.

    def block(self, clip, U, V, name):
        """(B, C, K, H, W) to the same shape."""
        batch, channels, count, height, width = clip.shape
        aligned = self.gather(clip, U, V)
        if self.is_wrong("tokens frame by frame"):
            tokens = aligned.permute(0, 2, 3, 4, 1).flatten(1, 3)
        else:
            tokens = aligned.permute(0, 3, 4, 2, 1).flatten(1, 3)
        tokens = self.mamba(self.norm(tokens, f"{name}.norm1"), f"{name}.mamba")
        if self.is_wrong("tokens frame by frame"):
            m = tokens.view(batch, count, height, width, channels).permute(0, 4, 1, 2, 3)
        else:
            m = tokens.view(batch, height, width, count, channels).permute(0, 4, 3, 1, 2)
        plain = self.is_wrong("skips without scale")
        scale = 1.0 if plain else self.state[f"{name}.skip_scale"]
        z = scale * clip + self.scatter(m, U, V)
        n = self.norm(z.movedim(1, -1), f"{name}.norm2")
        hidden = self.linear(n, f"{name}.mlp.fc1").movedim(-1, 1)
        conv = f"{name}.mlp.dwconv.dwconv"
        hidden = F.conv3d(
            hidden,
            self.state[f"{conv}.weight"],
            self.state[f"{conv}.bias"],
            padding=1,
            groups=hidden.shape[1],
        )
        out = self.linear(self.gelu(hidden.movedim(1, -1)), f"{name}.mlp.fc2").movedim(-1, 1)
        scale = 1.0 if plain else self.state[f"{name}.skip_scale2"].view(1, -1, 1, 1, 1)
        return scale * z + out

    def gather(self, clip, U, V):
        """Every frame onto the middle one, (B, C, K, H, W)."""
        c = self.radius
        aligned = []
        for k in range(clip.shape[2]):
            flow = torch.zeros_like(U[0])
            steps = (
                [V[j] for j in range(k, c)] if k < c else [U[j] for j in range(k - 1, c - 1, -1)]
            )
            if self.is_wrong("flows composed from the anchor on"):
                steps = steps[::-1]
            for number, step in enumerate(steps):
                flow = step if number == 0 else flow + warp(step, flow)
            if k == c and self.is_wrong("anchor not aligned"):
                aligned.append(clip[:, :, k])
            else:
                aligned.append(self.align(clip[:, :, k], clip[:, :, c], flow))
        return torch.stack(aligned, 2)

    def scatter(self, m, U, V):
        """Every frame from the middle one's grid back to its own, (B, C, K, H, W)."""
        c = self.radius
        padding = "border" if self.is_wrong("scatter repeats the border") else "zeros"
        frames = []
        for k in range(m.shape[2]):
            steps = (
                [U[j] for j in range(c - 1, k - 1, -1)] if k < c else [V[j] for j in range(c, k)]
            )
            flow = None
            for step in steps:
                flow = step if flow is None else flow + warp(step, flow)
            frame = m[:, :, k]
            frames.append(frame if flow is None else warp(frame, flow, padding))
        return torch.stack(frames, 2)

    # Section 2: Mamba in both directions.

    def mamba(self, u, name):
        x, z = self.linear(u, f"{name}.in_proj").transpose(1, 2).chunk(2, dim=1)
        y = self.direction(x, z, name, "", "A_log")
        if not self.is_wrong("one direction only"):
            y = y + self.direction(x.flip(-1), z.flip(-1), name, "_b", "A_b_log").flip(-1)
        if self.is_wrong("directions averaged"):
            y = y / 2
        return self.linear(y.transpose(1, 2), f"{name}.out_proj")

    def direction(self, x, z, name, twin, decay):
        weight = self.state[f"{name}.conv1d{twin}.weight"]
        bias = self.state[f"{name}.conv1d{twin}.bias"]
        x = F.silu(F.conv1d(F.pad(x, (weight.shape[-1] - 1, 0)), weight, bias, groups=len(weight)))
        A = -torch.exp(self.state[f"{name}.{decay}"])
        rank = self.state[f"{name}.dt_proj{twin}.weight"].shape[1]
        parts = self.linear(x.transpose(1, 2), f"{name}.x_proj{twin}")
        dt, B, C = parts.split((rank, A.shape[1], A.shape[1]), dim=-1)
        return self.scan(
            x.contiguous(),
            (dt @ self.state[f"{name}.dt_proj{twin}.weight"].t()).transpose(1, 2),
            A,
            B.transpose(1, 2),
            C.transpose(1, 2),
            D=self.state[f"{name}.D{twin}"],
            z=z,
            delta_bias=self.state[f"{name}.dt_proj{twin}.bias"],
            delta_softplus=True,
        )

    # Section 8: implicit alignment.

    def align(self, y, x, flow):
        """Frame y onto frame x, (B, C, H, W), along a flow on the grid of x."""
        batch, channels, height, width = y.shape
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pos = torch.stack((rows + flow[:, 1], columns + flow[:, 0]), -1)  # (B, H, W, 2)
        base = pos.round() if self.is_wrong("nearest pixel first") else pos.floor()
        off = pos - base
        corners = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        taps = base[..., None, :] + corners  # (B, H, W, 4, 2)
        row = taps[..., 0].clamp(0, height - 1).long()
        column = taps[..., 1].clamp(0, width - 1).long()
        near = y.permute(0, 2, 3, 1)[torch.arange(batch).view(-1, 1, 1, 1), row, column]
        temperature = 10000.0 if self.is_wrong("temperature of language models") else 0.01
        share = 1 if self.is_wrong("question coded like the taps") else 2
        question = self.code(off / (share + 1e-6), channels, temperature)
        place = self.code(corners / (1 + 1e-6), channels, 0.01)
        shape = (*near.shape[:-1], self.heads, -1)
        q = self.linear(x.permute(0, 2, 3, 1) + question, "implicit_align.q")
        k = self.linear(near + place, "implicit_align.k").view(shape)
        bare = self.is_wrong("values without their places")
        v = self.linear(near if bare else near + place, "implicit_align.v").view(shape)
        q = q.unflatten(-1, (self.heads, -1))[..., None, :, :]
        scores = (q * k).sum(-1) * q.shape[-1] ** -0.5  # (B, H, W, 4, heads)
        mixed = (scores.softmax(-2)[..., None] * v).sum(-3).flatten(-2)
        return mixed.permute(0, 3, 1, 2)

    def code(self, place, channels, temperature):
        parts = []
        for axis in (0, 1):
            for i in range(channels // 2):
                wave = temperature ** (2 * (i // 2) / (channels // 2))
                angle = place[..., axis].float() * 2 * math.pi / wave
                parts.append(angle.cos() if i % 2 else angle.sin())
        return torch.stack(parts, -1)


def warp(a, f, padding="zeros"):
    """Bilinear sampling of a at p + f(p), pixel centers at whole numbers."""
    height, width = a.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = 2 * (columns + f[:, 0]) / max(width - 1, 1) - 1
    y = 2 * (rows + f[:, 1]) / max(height - 1, 1) - 1
    grid = torch.stack((x, y), -1)
    return F.grid_sample(a, grid, mode="bilinear", padding_mode=padding, align_corners=True)
