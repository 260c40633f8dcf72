"""The kernels of `selective_scan_triton`, in the language of Triton.

A program is one warp. Each lane has two channels and all their states in registers, so the sum
over the states needs no exchange between lanes. Positions count the tokens in the order of the
recurrence; REVERSE maps positions to tokens, and nothing is flipped in memory. A tensor of tokens
is passed with its strides over batch, length and channel, and may be None.

States of pieces (chunks or tiles) are float32, (batch, pieces, N, width), padded to whole programs,
`width` = blocks x BLOCK, and to N states, a power of two. `rates` is A in the same layout, scaled
so that exp(step * A) = 2^(step * rate).
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _program(pieces, blocks, BLOCK: tl.constexpr):
    """The batch item, piece and block of channels of this program, and the channels."""
    program = tl.program_id(0)
    block = program % blocks
    piece = program // blocks
    item = piece // pieces
    return item, piece - item * pieces, block, block * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _token_rows(x, strides, item, token, direction):
    """The address of the values of a token, and the signed stride to the next token."""
    first = item.to(tl.int64) * strides[0] + token.to(tl.int64) * strides[1]
    return x + first, direction * strides[1]


@triton.jit
def _load(row, inner, stride, mask):
    """Load values of one token as float32; masked ones are zero."""
    return tl.load(row + inner.to(tl.int64) * stride, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _state_offsets(item, pieces, piece, width, channel, N: tl.constexpr):
    """Offsets of the states of one piece in an array, (batch, pieces, N, width)."""
    first = (item.to(tl.int64) * pieces + piece) * N
    return (first + tl.arange(0, N)[:, None]) * width + channel[None, :]


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -LOG2E))


@triton.jit
def _softplus(x):
    """log(1 + exp(x)) = max(x, 0) + 2 atanh(s), with s = e / (2 + e) and e = exp(-|x|).

    As s <= 1/3, the series of atanh up to s^13 has a relative error of 1.4e-8. A logarithm would
    lose precision where exp(x) is small.
    """
    e = tl.exp2(tl.abs(x) * -LOG2E)
    s = e / (2.0 + e)
    q = s * s
    series = 1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13)))
    series = 1.0 + q * (1 / 3 + q * (1 / 5 + q * series))
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def _step(raw, bias, channel, mask, SOFTPLUS: tl.constexpr):
    """Step sizes of one token; masked ones are zero, which changes no state."""
    if bias is not None:
        raw += tl.load(bias + channel)
    return tl.where(mask, _softplus(raw) if SOFTPLUS else raw, 0.0)


# The compiler chooses the layout of a two-dimensional array by the alignment of its rows. Because
# the length of a row is given in pairs, each lane gets two channels of a row.
@triton.jit(do_not_specialize=["length", "chunks", "pairs"])
def run_states(
    value,
    value_strides,
    gate,
    gate_strides,
    delta,
    delta_strides,
    weights,
    weights_strides,
    bias,
    rates,
    starts,
    ends,
    totals,
    kept,
    length,
    chunks,
    pairs,
    channels,
    states,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    ADJOINT: tl.constexpr,
    CHUNK: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Run the recurrence through a chunk, from ``starts`` or from zero: h = decay h + step u B.

    ADJOINT: run the gradient of the state from the end of the chunk: k = decay (k + dy silu(z) C).
    Writes the last state to ``ends`` and the sum of the steps to ``totals``, or the state before
    each tile to ``kept``.
    """
    width = 2 * pairs
    item, chunk, _, channel = _program(chunks, width // BLOCK, BLOCK)
    n = tl.arange(0, N)
    rate = tl.load(rates + n[:, None] * width + channel[None, :])
    h = tl.zeros((N, BLOCK), tl.float32)
    if starts is not None:
        h = tl.load(starts + _state_offsets(item, chunks, chunk, width, channel, N))
    total = tl.zeros((BLOCK,), tl.float32)
    tiles = tl.cdiv(tl.minimum(CHUNK, length - chunk * CHUNK), TILE)
    position = chunk * CHUNK + (tiles * TILE - 1 if ADJOINT else 0)
    token = length - 1 - position if REVERSE else position
    direction = tl.full((), 1 if REVERSE == ADJOINT else -1, tl.int64)
    values, value_stride = _token_rows(value, value_strides, item, token, direction)
    deltas, delta_stride = _token_rows(delta, delta_strides, item, token, direction)
    loads, load_stride = _token_rows(weights, weights_strides, item, token, direction)
    if gate is not None:
        gates, gate_stride = _token_rows(gate, gate_strides, item, token, direction)
    for i in range(0, tiles):
        if kept is not None:
            tile = chunk * (CHUNK // TILE) + (tiles - 1 - i if ADJOINT else i)
            tl.store(kept + _state_offsets(item, tl.cdiv(length, TILE), tile, width, channel, N), h)
        for _ in range(0, TILE, GROUP):
            steps, inputs, into = (), (), ()
            for j in tl.static_range(GROUP):
                is_inside = position + (-j if ADJOINT else j) < length
                mask = channel < tl.where(is_inside, channels, 0)
                raw = _load(deltas + j * delta_stride, channel, delta_strides[2], mask)
                step = _step(raw, bias, channel, mask, SOFTPLUS)
                x = _load(values + j * value_stride, channel, value_strides[2], mask)
                if gate is not None:
                    z = _load(gates + j * gate_stride, channel, gate_strides[2], mask)
                    x *= z * _sigmoid(z)
                steps += (step,)
                inputs += (x if ADJOINT else x * step,)
                mask = n < tl.where(is_inside, states, 0)
                into += (_load(loads + j * load_stride, n, weights_strides[2], mask),)
            for j in tl.static_range(GROUP):
                decay = tl.exp2(steps[j][None, :] * rate)
                add = inputs[j][None, :] * into[j][:, None]
                h = decay * (h + add) if ADJOINT else decay * h + add
                total += steps[j]
            position += -GROUP if ADJOINT else GROUP
            values += GROUP * value_stride
            deltas += GROUP * delta_stride
            loads += GROUP * load_stride
            if gate is not None:
                gates += GROUP * gate_stride
    if ends is not None:
        tl.store(ends + _state_offsets(item, chunks, chunk, width, channel, N), h)
        tl.store(totals + (item.to(tl.int64) * chunks + chunk) * width + channel, total)


@triton.jit(do_not_specialize=["chunks", "pairs"])
def carry(
    ends,
    totals,
    rates,
    starts,
    chunks,
    pairs,
    ADJOINT: tl.constexpr,
    GROUP: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute the initial states of all chunks, for one of the N states of some channels."""
    width = 2 * pairs
    item, n, _, channel = _program(N, width // BLOCK, BLOCK)
    rate = tl.load(rates + n * width + channel)
    h = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, chunks, GROUP):
        places, sums, adds = (), (), ()
        for j in tl.static_range(GROUP):
            mask = channel < tl.where(first + j < chunks, width, 0)
            chunk = item.to(tl.int64) * chunks
            chunk += chunks - 1 - first - j if ADJOINT else first + j
            places += ((chunk * N + n) * width + channel,)
            sums += (tl.load(totals + chunk * width + channel, mask=mask, other=0.0),)
            adds += (tl.load(ends + places[j], mask=mask, other=0.0),)
        for j in tl.static_range(GROUP):
            mask = channel < tl.where(first + j < chunks, width, 0)
            tl.store(starts + places[j], h, mask=mask)
            h = tl.exp2(sums[j] * rate) * h + adds[j]


@triton.jit(do_not_specialize=["length", "chunks", "pairs"])
def write_outputs(
    u,
    u_strides,
    z,
    z_strides,
    add,
    add_strides,
    delta,
    delta_strides,
    B,
    B_strides,
    C,
    C_strides,
    y,
    y_strides,
    bias,
    rates,
    D,
    starts,
    length,
    chunks,
    pairs,
    channels,
    states,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    CHUNK: tl.constexpr,
    GROUP: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Run a chunk from its start and write y = (<C, h> + D u + add) silu(z)."""
    width = 2 * pairs
    item, chunk, _, channel = _program(chunks, width // BLOCK, BLOCK)
    n = tl.arange(0, N)
    rate = tl.load(rates + n[:, None] * width + channel[None, :])
    h = tl.load(starts + _state_offsets(item, chunks, chunk, width, channel, N))
    position = chunk * CHUNK
    token = length - 1 - position if REVERSE else position
    direction = tl.full((), -1 if REVERSE else 1, tl.int64)
    inputs, u_stride = _token_rows(u, u_strides, item, token, direction)
    deltas, delta_stride = _token_rows(delta, delta_strides, item, token, direction)
    Bs, B_stride = _token_rows(B, B_strides, item, token, direction)
    Cs, C_stride = _token_rows(C, C_strides, item, token, direction)
    ys, y_stride = _token_rows(y, y_strides, item, token, direction)
    if z is not None:
        gates, z_stride = _token_rows(z, z_strides, item, token, direction)
    if add is not None:
        adds, add_stride = _token_rows(add, add_strides, item, token, direction)
    for _ in range(0, tl.minimum(CHUNK, length - position), GROUP):
        xs, steps, zs, others, into, out = (), (), (), (), (), ()
        for j in tl.static_range(GROUP):
            mask = channel < tl.where(position + j < length, channels, 0)
            xs += (_load(inputs + j * u_stride, channel, u_strides[2], mask),)
            raw = _load(deltas + j * delta_stride, channel, delta_strides[2], mask)
            steps += (_step(raw, bias, channel, mask, SOFTPLUS),)
            if z is not None:
                zs += (_load(gates + j * z_stride, channel, z_strides[2], mask),)
            if add is not None:
                others += (_load(adds + j * add_stride, channel, add_strides[2], mask),)
            mask = n < tl.where(position + j < length, states, 0)
            into += (_load(Bs + j * B_stride, n, B_strides[2], mask),)
            out += (_load(Cs + j * C_stride, n, C_strides[2], mask),)
        for j in tl.static_range(GROUP):
            inflow = (steps[j] * xs[j])[None, :] * into[j][:, None]
            h = tl.exp2(steps[j][None, :] * rate) * h + inflow
            result = tl.sum(h * out[j][:, None], 0)
            if D is not None:
                result += tl.load(D + channel) * xs[j]
            if add is not None:
                result += others[j]
            if z is not None:
                result *= zs[j] * _sigmoid(zs[j])
            mask = channel < tl.where(position + j < length, channels, 0)
            tl.store(ys + j * y_stride + channel.to(tl.int64) * y_strides[2], result, mask=mask)
        position += GROUP
        inputs += GROUP * u_stride
        deltas += GROUP * delta_stride
        Bs += GROUP * B_stride
        Cs += GROUP * C_stride
        ys += GROUP * y_stride
        if z is not None:
            gates += GROUP * z_stride
        if add is not None:
            adds += GROUP * add_stride


@triton.jit
def _recompute(
    h,
    rate,
    steps,
    xs,
    outs,
    sums,
    B,
    B_stride,
    C,
    C_stride,
    dC,
    d_stride,
    inside,
    TILE: tl.constexpr,
):
    """Recompute one state through a tile for `_adjoint`, and write dC = sum of out h."""
    earlier, decays, new_sums = (), (), ()
    for j in tl.static_range(TILE):
        b = tl.load(B + j * B_stride, mask=j < inside, other=0.0).to(tl.float32)
        c = tl.load(C + j * C_stride, mask=j < inside, other=0.0).to(tl.float32)
        decay = tl.exp2(steps[j] * rate)
        earlier += (h,)
        decays += (decay,)
        h = decay * h + steps[j] * xs[j] * b
        new_sums += (sums[j] + c * h,)
        tl.store(dC + j * d_stride, tl.sum(outs[j] * h, 0), mask=j < inside)
    return earlier, decays, new_sums


@triton.jit
def _adjoint(
    k,
    rate,
    steps,
    xs,
    outs,
    earlier,
    decays,
    inflows,
    dsteps,
    B,
    B_stride,
    C,
    C_stride,
    dB,
    d_stride,
    inside,
    TILE: tl.constexpr,
):
    """Run the gradient of one state backward through a tile: g = out C + k, then k = decay g."""
    new_inflows, new_dsteps = (), ()
    drate = tl.zeros(rate.shape, tl.float32)
    for j in tl.static_range(TILE - 1, -1, -1):
        b = tl.load(B + j * B_stride, mask=j < inside, other=0.0).to(tl.float32)
        c = tl.load(C + j * C_stride, mask=j < inside, other=0.0).to(tl.float32)
        g = outs[j] * c + k
        k = decays[j] * g
        slope = k * earlier[j]
        drate += slope * steps[j]
        new_inflows = (inflows[j] + g * b,) + new_inflows
        new_dsteps = (dsteps[j] + slope * rate,) + new_dsteps
        tl.store(dB + j * d_stride, tl.sum(g * steps[j] * xs[j], 0), mask=j < inside)
    return drate, new_inflows, new_dsteps


@triton.jit(do_not_specialize=["length", "tiles", "pairs"])
def write_gradients(
    u,
    u_strides,
    z,
    z_strides,
    add,
    add_strides,
    delta,
    delta_strides,
    B,
    B_strides,
    C,
    C_strides,
    dy,
    dy_strides,
    du,
    du_strides,
    dz,
    dz_strides,
    ddelta,
    ddelta_strides,
    dB,
    dC,
    dA,
    dD,
    dbias,
    bias,
    rates,
    D,
    before,
    after,
    length,
    tiles,
    pairs,
    channels,
    states,
    SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr,
    TILE: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute all gradients of a tile from the state before it and the gradient of its last state.

    With out = dy silu(z), from the last token to the first, for each state:
        g = out C + k,    k = decay g,    du = step (g B) + out D,    dB = g step u
        dstep = u (g B) + k h[t-1] A,    dA = k h[t-1] step,    dC = out h
    """
    width = 2 * pairs
    item, tile, block, channel = _program(tiles, width // BLOCK, BLOCK)
    position = tile * TILE
    inside = length - position  # tokens of the tile that exist, if fewer than TILE
    token = length - 1 - position if REVERSE else position
    direction = tl.full((), -1 if REVERSE else 1, tl.int64)
    inputs, u_stride = _token_rows(u, u_strides, item, token, direction)
    deltas, delta_stride = _token_rows(delta, delta_strides, item, token, direction)
    slopes, dy_stride = _token_rows(dy, dy_strides, item, token, direction)
    Bs, B_stride = _token_rows(B, B_strides, item, token, direction)
    Cs, C_stride = _token_rows(C, C_strides, item, token, direction)
    if z is not None:
        gates, z_stride = _token_rows(z, z_strides, item, token, direction)
    if add is not None:
        adds, add_stride = _token_rows(add, add_strides, item, token, direction)
    xs, steps, outs, sums = (), (), (), ()
    for j in tl.static_range(TILE):
        mask = channel < tl.where(j < inside, channels, 0)
        raw = _load(deltas + j * delta_stride, channel, delta_strides[2], mask)
        out = _load(slopes + j * dy_stride, channel, dy_strides[2], mask)
        if z is not None:
            gate = _load(gates + j * z_stride, channel, z_strides[2], mask)
            out *= gate * _sigmoid(gate)
        xs += (_load(inputs + j * u_stride, channel, u_strides[2], mask),)
        steps += (_step(raw, bias, channel, mask, SOFTPLUS),)
        outs += (out,)
        sums += (tl.zeros((BLOCK,), tl.float32),)
    inflows, dsteps = sums, sums
    # dB and dC of the channels of this program; the caller sums them over the programs.
    part = ((item * (width // BLOCK) + block).to(tl.int64) * length + token) * states
    d_stride = direction * states
    for n in range(0, states):
        rate = tl.load(rates + n * width + channel)
        place = ((item.to(tl.int64) * tiles + tile) * N + n) * width + channel
        Bn, Cn = Bs + n * B_strides[2], Cs + n * C_strides[2]
        earlier, decays, sums = _recompute(
            tl.load(before + place), rate, steps, xs, outs, sums,
            Bn, B_stride, Cn, C_stride, dC + part + n, d_stride, inside, TILE,
        )  # fmt: skip
        drate, inflows, dsteps = _adjoint(
            tl.load(after + place), rate, steps, xs, outs, earlier, decays, inflows, dsteps,
            Bn, B_stride, Cn, C_stride, dB + part + n, d_stride, inside, TILE,
        )  # fmt: skip
        tl.store(dA + place, drate)
    skip = tl.load(D + channel) if D is not None else tl.zeros((BLOCK,), tl.float32)
    dskip = tl.zeros((BLOCK,), tl.float32)
    draws = tl.zeros((BLOCK,), tl.float32)
    dus, du_stride = _token_rows(du, du_strides, item, token, direction)
    ddeltas, ddelta_stride = _token_rows(ddelta, ddelta_strides, item, token, direction)
    if z is not None:
        dzs, dz_stride = _token_rows(dz, dz_strides, item, token, direction)
    for j in tl.static_range(TILE):
        mask = channel < tl.where(j < inside, channels, 0)
        dx = inflows[j] * steps[j] + skip * outs[j]
        tl.store(dus + j * du_stride + channel.to(tl.int64) * du_strides[2], dx, mask=mask)
        draw = inflows[j] * xs[j] + dsteps[j] * LN2
        if SOFTPLUS:
            raw = _load(deltas + j * delta_stride, channel, delta_strides[2], mask)
            if bias is not None:
                raw += tl.load(bias + channel)
            draw *= _sigmoid(raw)
        place = channel.to(tl.int64) * ddelta_strides[2]
        tl.store(ddeltas + j * ddelta_stride + place, draw, mask=mask)
        if z is not None:
            gate = _load(gates + j * z_stride, channel, z_strides[2], mask)
            s = _sigmoid(gate)
            total = sums[j] + skip * xs[j]
            if add is not None:
                total += _load(adds + j * add_stride, channel, add_strides[2], mask)
            dgate = total * s * (1.0 + gate * (1.0 - s))
            dgate *= _load(slopes + j * dy_stride, channel, dy_strides[2], mask)
            tl.store(dzs + j * dz_stride + channel.to(tl.int64) * dz_strides[2], dgate, mask=mask)
        dskip += outs[j] * xs[j]
        draws += tl.where(mask, draw, 0.0)
    place = (item.to(tl.int64) * tiles + tile) * width + channel
    tl.store(dD + place, dskip)
    tl.store(dbias + place, draws)
