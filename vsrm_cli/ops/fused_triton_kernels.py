"""The kernels of `fused_triton`, in the language of Triton."""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["length"])
def convolve(
    u,
    u_strides,
    weight,
    bias,
    y,
    length,
    channels,
    TAPS: tl.constexpr,
    REVERSE: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write y = silu(causal convolution of u) for some tokens and channels; y is contiguous."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    item = tl.program_id(2).to(tl.int64)
    is_channel = channel < channels
    total = tl.zeros((TOKENS, BLOCK), tl.float32)
    total += tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(TAPS):
        away = TAPS - 1 - tap
        read = token + away if REVERSE else token - away
        is_token = (read >= 0) & (read < length)
        place = item * u_strides[0] + read.to(tl.int64)[:, None] * u_strides[1]
        place += channel.to(tl.int64)[None, :] * u_strides[2]
        mask = is_token[:, None] & is_channel[None, :]
        x = tl.load(u + place, mask=mask, other=0.0).to(tl.float32)
        w = tl.load(weight + channel * TAPS + tap, mask=is_channel, other=0.0).to(tl.float32)
        total += x * w[None, :]
    total *= 1.0 / (1.0 + tl.exp2(total * -LOG2E))
    place = (item * length + token)[:, None] * channels + channel[None, :]
    tl.store(y + place, total, mask=(token < length)[:, None] & is_channel[None, :])


# For vectorized loads, the compiler must know a divisor of the length of a row: rows have `groups`
# groups of ALIGN channels.
@triton.jit(do_not_specialize=["count"])
def convolve_clip(
    x,
    weight,
    bias,
    y,
    time,
    height,
    width,
    count,
    groups,
    ALIGN: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the depthwise 3 x 3 x 3 convolution of contiguous clips, (B, T, H, W, C).

    The weights are (27, C). Each value is read up to 27 times, nearly always from a cache.
    """
    channels = groups * ALIGN
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_channel = channel < channels
    column, row = token % width, token // width % height
    frame = token // width // height % time
    total = tl.zeros((TOKENS, BLOCK), tl.float32)
    total += tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(27):
        f, r, c = frame + (tap // 9 - 1), row + (tap // 3 % 3 - 1), column + (tap % 3 - 1)
        is_inside = (f >= 0) & (f < time) & (r >= 0) & (r < height) & (c >= 0) & (c < width)
        read = token + ((tap // 9 - 1) * height + (tap // 3 % 3 - 1)) * width + (tap % 3 - 1)
        place = read.to(tl.int64)[:, None] * channels + channel[None, :]
        mask = (is_inside & (token < count))[:, None] & is_channel[None, :]
        values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        w = tl.load(weight + tap * channels + channel, mask=is_channel, other=0.0).to(tl.float32)
        total += values * w[None, :]
    place = token.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(y + place, total, mask=(token < count)[:, None] & is_channel[None, :])


@triton.jit(do_not_specialize=["count"])
def gather(
    pixels,
    points,
    points_strides,
    out,
    height,
    width,
    count,
    groups,
    ALIGN: tl.constexpr,
    POINTS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sample contiguous pixels, (B, H, W, C), bilinearly, clamped to the border.

    Result n of a batch item is point n % POINTS of pixel n // POINTS.
    """
    channels = groups * ALIGN
    n = tl.program_id(0) * AT_ONCE + tl.arange(0, AT_ONCE)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    item = tl.program_id(2).to(tl.int64)
    is_result = n < count
    place = item * points_strides[0] + (n % POINTS).to(tl.int64) * points_strides[1] + n // POINTS
    x = tl.load(points + place, mask=is_result, other=0.0)
    y = tl.load(points + place + points_strides[2], mask=is_result, other=0.0)
    # NaN must not become an address, so it becomes zero. `maximum` would not do: its result for NaN
    # differs between versions of Triton, but NaN > 0 is false in all of them.
    x = tl.minimum(tl.where(x > 0.0, x, 0.0), width - 1.0)
    y = tl.minimum(tl.where(y > 0.0, y, 0.0), height - 1.0)
    left, top = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32)
    right, bottom = x - left, y - top  # weights of these neighbors
    beside, below = tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1)
    mask = is_result[:, None] & (channel < channels)[None, :]
    first = pixels + item * height * width * channels + channel[None, :]
    total = tl.zeros((AT_ONCE, BLOCK), tl.float32)
    for corner in tl.static_range(4):
        row = below if corner // 2 else top
        column = beside if corner % 2 else left
        share = (bottom if corner // 2 else 1.0 - bottom) * (right if corner % 2 else 1.0 - right)
        pixel = (row.to(tl.int64) * width + column) * channels
        values = tl.load(first + pixel[:, None], mask=mask, other=0.0).to(tl.float32)
        total += values * share[:, None]
    place = (item * count + n)[:, None] * channels + channel[None, :]
    tl.store(out + place, total, mask=mask)
