"""The kernels of `selective_scan_triton`, in Triton's language: it looks like Python and is not.

A program is one warp. Each lane has two channels and all their states in its registers, so the
sum over the states needs no exchange between lanes. Tokens are counted in the order in which the
recurrence passes them, as positions; REVERSE turns positions into tokens, nothing is flipped.
A tensor of tokens comes with its strides over batch, length and channel, and may be missing.

States of pieces of the length (chunks or tiles) are float32, (batch, pieces, N, width), filled up
to whole programs, `width` = blocks x BLOCK, and to a power of two of states, N. `rates` is A in
the same form, such that exp(step * A) = 2^(step * rate).
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _place(pieces, blocks, BLOCK: tl.constexpr):
    """Which batch item, piece of the length and block of channels; and those channels."""
    program = tl.program_id(0)
    block = program % blocks
    piece = program // blocks
    item = piece // pieces
    return item, piece - item * pieces, block, block * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _rows(x, strides, item, token, way):
    """Where the values of a token lie, and how far away those of the next one in a loop."""
    first = item.to(tl.int64) * strides[0] + token.to(tl.int64) * strides[1]
    return x + first, way * strides[1]


@triton.jit
def _load(row, inner, stride, mask):
    """Values of one token, float32; zero where masked."""
    return tl.load(row + inner.to(tl.int64) * stride, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _slab(item, pieces, piece, width, channel, N: tl.constexpr):
    """Offsets of the states of one piece in an array (batch, pieces, N, width)."""
    first = (item.to(tl.int64) * pieces + piece) * N
    return (first + tl.arange(0, N)[:, None]) * width + channel[None, :]


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -LOG2E))


@triton.jit
def _softplus(x):
    """log(1 + exp(x)) = max(x, 0) + 2 atanh(s), with s = e / (2 + e) and e = exp(-|x|).

    As s <= 1/3, the series of atanh up to s^13 leaves an error of 1.4e-8 of the value. A logarithm
    would lose its digits where exp(x) is small.
    """
    e = tl.exp2(tl.abs(x) * -LOG2E)
    s = e / (2.0 + e)
    q = s * s
    series = 1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13)))
    series = 1.0 + q * (1 / 3 + q * (1 / 5 + q * series))
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def _step(raw, bias, channel, mask, SOFTPLUS: tl.constexpr):
    """Step sizes of one token; zero, which changes no state, where masked."""
    if bias is not None:
        raw += tl.load(bias + channel)
    return tl.where(mask, _softplus(raw) if SOFTPLUS else raw, 0.0)


# The compiler lays a two-dimensional array out by how its rows are aligned in memory. It is told
# that rows are some number of pairs long, and not which: so a lane gets two channels of each row.
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
    """Run the state through a chunk, from ``starts`` or from zero: h = decay h + step u B.

    ADJOINT: from the chunk's end, what flows back out of each token: k = decay (k + dy silu(z) C).
    Leaves the last state in ``ends`` and the sum of the steps in ``totals``, or the state before
    each tile in ``kept``.
    """
    width = 2 * pairs
    item, chunk, _, channel = _place(chunks, width // BLOCK, BLOCK)
    n = tl.arange(0, N)
    rate = tl.load(rates + n[:, None] * width + channel[None, :])
    h = tl.zeros((N, BLOCK), tl.float32)
    if starts is not None:
        h = tl.load(starts + _slab(item, chunks, chunk, width, channel, N))
    total = tl.zeros((BLOCK,), tl.float32)
    tiles = tl.cdiv(tl.minimum(CHUNK, length - chunk * CHUNK), TILE)
    position = chunk * CHUNK + (tiles * TILE - 1 if ADJOINT else 0)
    token = length - 1 - position if REVERSE else position
    way = tl.full((), 1 if REVERSE == ADJOINT else -1, tl.int64)
    values, value_way = _rows(value, value_strides, item, token, way)
    deltas, delta_way = _rows(delta, delta_strides, item, token, way)
    loads, load_way = _rows(weights, weights_strides, item, token, way)
    if gate is not None:
        gates, gate_way = _rows(gate, gate_strides, item, token, way)
    for i in range(0, tiles):
        if kept is not None:
            tile = chunk * (CHUNK // TILE) + (tiles - 1 - i if ADJOINT else i)
            tl.store(kept + _slab(item, tl.cdiv(length, TILE), tile, width, channel, N), h)
        for _ in range(0, TILE, GROUP):
            steps, inputs, into = (), (), ()
            for j in tl.static_range(GROUP):
                is_inside = position + (-j if ADJOINT else j) < length
                mask = channel < tl.where(is_inside, channels, 0)
                raw = _load(deltas + j * delta_way, channel, delta_strides[2], mask)
                step = _step(raw, bias, channel, mask, SOFTPLUS)
                x = _load(values + j * value_way, channel, value_strides[2], mask)
                if gate is not None:
                    z = _load(gates + j * gate_way, channel, gate_strides[2], mask)
                    x *= z * _sigmoid(z)
                steps += (step,)
                inputs += (x if ADJOINT else x * step,)
                mask = n < tl.where(is_inside, states, 0)
                into += (_load(loads + j * load_way, n, weights_strides[2], mask),)
            for j in tl.static_range(GROUP):
                decay = tl.exp2(steps[j][None, :] * rate)
                add = inputs[j][None, :] * into[j][:, None]
                h = decay * (h + add) if ADJOINT else decay * h + add
                total += steps[j]
            position += -GROUP if ADJOINT else GROUP
            values += GROUP * value_way
            deltas += GROUP * delta_way
            loads += GROUP * load_way
            if gate is not None:
                gates += GROUP * gate_way
    if ends is not None:
        tl.store(ends + _slab(item, chunks, chunk, width, channel, N), h)
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
    """Find the state with which each chunk begins, for one of the states of some channels."""
    width = 2 * pairs
    item, n, _, channel = _place(N, width // BLOCK, BLOCK)
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
    item, chunk, _, channel = _place(chunks, width // BLOCK, BLOCK)
    n = tl.arange(0, N)
    rate = tl.load(rates + n[:, None] * width + channel[None, :])
    h = tl.load(starts + _slab(item, chunks, chunk, width, channel, N))
    position = chunk * CHUNK
    token = length - 1 - position if REVERSE else position
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    inputs, u_way = _rows(u, u_strides, item, token, way)
    deltas, delta_way = _rows(delta, delta_strides, item, token, way)
    Bs, B_way = _rows(B, B_strides, item, token, way)
    Cs, C_way = _rows(C, C_strides, item, token, way)
    ys, y_way = _rows(y, y_strides, item, token, way)
    if z is not None:
        gates, z_way = _rows(z, z_strides, item, token, way)
    if add is not None:
        adds, add_way = _rows(add, add_strides, item, token, way)
    for _ in range(0, tl.minimum(CHUNK, length - position), GROUP):
        xs, steps, zs, others, into, out = (), (), (), (), (), ()
        for j in tl.static_range(GROUP):
            mask = channel < tl.where(position + j < length, channels, 0)
            xs += (_load(inputs + j * u_way, channel, u_strides[2], mask),)
            raw = _load(deltas + j * delta_way, channel, delta_strides[2], mask)
            steps += (_step(raw, bias, channel, mask, SOFTPLUS),)
            if z is not None:
                zs += (_load(gates + j * z_way, channel, z_strides[2], mask),)
            if add is not None:
                others += (_load(adds + j * add_way, channel, add_strides[2], mask),)
            mask = n < tl.where(position + j < length, states, 0)
            into += (_load(Bs + j * B_way, n, B_strides[2], mask),)
            out += (_load(Cs + j * C_way, n, C_strides[2], mask),)
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
            tl.store(ys + j * y_way + channel.to(tl.int64) * y_strides[2], result, mask=mask)
        position += GROUP
        inputs += GROUP * u_way
        deltas += GROUP * delta_way
        Bs += GROUP * B_way
        Cs += GROUP * C_way
        ys += GROUP * y_way
        if z is not None:
            gates += GROUP * z_way
        if add is not None:
            adds += GROUP * add_way


@triton.jit
def _forth(
    h, rate, steps, xs, outs, sums, B, B_way, C, C_way, dC, d_way, inside, TILE: tl.constexpr
):
    """Run one state through a tile again; what the way back needs, and dC = sum of out h."""
    earlier, decays, new_sums = (), (), ()
    for j in tl.static_range(TILE):
        b = tl.load(B + j * B_way, mask=j < inside, other=0.0).to(tl.float32)
        c = tl.load(C + j * C_way, mask=j < inside, other=0.0).to(tl.float32)
        decay = tl.exp2(steps[j] * rate)
        earlier += (h,)
        decays += (decay,)
        h = decay * h + steps[j] * xs[j] * b
        new_sums += (sums[j] + c * h,)
        tl.store(dC + j * d_way, tl.sum(outs[j] * h, 0), mask=j < inside)
    return earlier, decays, new_sums


@triton.jit
def _back(
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
    B_way,
    C,
    C_way,
    dB,
    d_way,
    inside,
    TILE: tl.constexpr,
):
    """Run the gradient of one state back through a tile: g = out C + k, then k = decay g."""
    new_inflows, new_dsteps = (), ()
    drate = tl.zeros(rate.shape, tl.float32)
    for j in tl.static_range(TILE - 1, -1, -1):
        b = tl.load(B + j * B_way, mask=j < inside, other=0.0).to(tl.float32)
        c = tl.load(C + j * C_way, mask=j < inside, other=0.0).to(tl.float32)
        g = outs[j] * c + k
        k = decays[j] * g
        slope = k * earlier[j]
        drate += slope * steps[j]
        new_inflows = (inflows[j] + g * b,) + new_inflows
        new_dsteps = (dsteps[j] + slope * rate,) + new_dsteps
        tl.store(dB + j * d_way, tl.sum(g * steps[j] * xs[j], 0), mask=j < inside)
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
    """Find all gradients inside a tile, from the state before it and what flows back into its end.

    With out = dy silu(z), from the last token to the first, for each state:
        g = out C + k,    k = decay g,    du = step (g B) + out D,    dB = g step u
        dstep = u (g B) + k h[t-1] A,    dA = k h[t-1] step,    dC = out h
    """
    width = 2 * pairs
    item, tile, block, channel = _place(tiles, width // BLOCK, BLOCK)
    position = tile * TILE
    inside = length - position  # so many tokens of the tile exist
    token = length - 1 - position if REVERSE else position
    way = tl.full((), -1 if REVERSE else 1, tl.int64)
    inputs, u_way = _rows(u, u_strides, item, token, way)
    deltas, delta_way = _rows(delta, delta_strides, item, token, way)
    slopes, dy_way = _rows(dy, dy_strides, item, token, way)
    Bs, B_way = _rows(B, B_strides, item, token, way)
    Cs, C_way = _rows(C, C_strides, item, token, way)
    if z is not None:
        gates, z_way = _rows(z, z_strides, item, token, way)
    if add is not None:
        adds, add_way = _rows(add, add_strides, item, token, way)
    xs, steps, outs, sums = (), (), (), ()
    for j in tl.static_range(TILE):
        mask = channel < tl.where(j < inside, channels, 0)
        raw = _load(deltas + j * delta_way, channel, delta_strides[2], mask)
        out = _load(slopes + j * dy_way, channel, dy_strides[2], mask)
        if z is not None:
            gate = _load(gates + j * z_way, channel, z_strides[2], mask)
            out *= gate * _sigmoid(gate)
        xs += (_load(inputs + j * u_way, channel, u_strides[2], mask),)
        steps += (_step(raw, bias, channel, mask, SOFTPLUS),)
        outs += (out,)
        sums += (tl.zeros((BLOCK,), tl.float32),)
    inflows, dsteps = sums, sums
    # dB and dC of the channels of this program; the caller adds those of the others.
    part = ((item * (width // BLOCK) + block).to(tl.int64) * length + token) * states
    d_way = way * states
    for n in range(0, states):
        rate = tl.load(rates + n * width + channel)
        place = ((item.to(tl.int64) * tiles + tile) * N + n) * width + channel
        Bn, Cn = Bs + n * B_strides[2], Cs + n * C_strides[2]
        earlier, decays, sums = _forth(
            tl.load(before + place), rate, steps, xs, outs, sums,
            Bn, B_way, Cn, C_way, dC + part + n, d_way, inside, TILE,
        )  # fmt: skip
        drate, inflows, dsteps = _back(
            tl.load(after + place), rate, steps, xs, outs, earlier, decays, inflows, dsteps,
            Bn, B_way, Cn, C_way, dB + part + n, d_way, inside, TILE,
        )  # fmt: skip
        tl.store(dA + place, drate)
    skip = tl.load(D + channel) if D is not None else tl.zeros((BLOCK,), tl.float32)
    dskip = tl.zeros((BLOCK,), tl.float32)
    draws = tl.zeros((BLOCK,), tl.float32)
    dus, du_way = _rows(du, du_strides, item, token, way)
    ddeltas, ddelta_way = _rows(ddelta, ddelta_strides, item, token, way)
    if z is not None:
        dzs, dz_way = _rows(dz, dz_strides, item, token, way)
    for j in tl.static_range(TILE):
        mask = channel < tl.where(j < inside, channels, 0)
        dx = inflows[j] * steps[j] + skip * outs[j]
        tl.store(dus + j * du_way + channel.to(tl.int64) * du_strides[2], dx, mask=mask)
        draw = inflows[j] * xs[j] + dsteps[j] * LN2
        if SOFTPLUS:
            raw = _load(deltas + j * delta_way, channel, delta_strides[2], mask)
            if bias is not None:
                raw += tl.load(bias + channel)
            draw *= _sigmoid(raw)
        place = channel.to(tl.int64) * ddelta_strides[2]
        tl.store(ddeltas + j * ddelta_way + place, draw, mask=mask)
        if z is not None:
            gate = _load(gates + j * z_way, channel, z_strides[2], mask)
            s = _sigmoid(gate)
            total = sums[j] + skip * xs[j]
            if add is not None:
                total += _load(adds + j * add_way, channel, add_strides[2], mask)
            dgate = total * s * (1.0 + gate * (1.0 - s))
            dgate *= _load(slopes + j * dy_way, channel, dy_strides[2], mask)
            tl.store(dzs + j * dz_way + channel.to(tl.int64) * dz_strides[2], dgate, mask=mask)
        dskip += outs[j] * xs[j]
        draws += tl.where(mask, draw, 0.0)
    place = (item.to(tl.int64) * tiles + tile) * width + channel
    tl.store(dD + place, dskip)
    tl.store(dbias + place, draws)
