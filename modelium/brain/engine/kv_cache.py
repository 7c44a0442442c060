"""What vLLM's key-value cache costs. What enters: a language model and lengths. What leaves: bytes, tokens, blocks.

vLLM cuts the cache into blocks of ``block_size`` tokens that every group of layers draws from one pool, so a sequence costs
whole blocks. How the pool is cut follows vLLM 0.32 (``kv_cache_utils.py``), and is exact for models whose layers are all of
one kind (MHA, GQA, MQA, MLA, one sliding window, Mamba). Layers of different kinds share the pool in groups of equally many
layers and equally large pages: that is followed too, padding included, but vLLM has finer packings for some of them, so there
the result is an upper bound (compressed vectors lie as closely as they can). A recurrent state beside attention is counted
twice: prefix caching keeps the last one as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from modelium.values import AttentionKind, DeviceKind, LanguageModel, LayerGroup

GPU_BLOCK = 16
CPU_BLOCK = 128
CPU_LATENT_BLOCK = 16  # vLLM's decode kernel for MLA on the CPU is compiled for this one size
_PER_TOKEN = (AttentionKind.FULL, AttentionKind.LATENT)
_KEEPS_NOTHING = (AttentionKind.NONE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvSettings:
    """What the cache's size depends on besides the model.

    ``in_flight_tokens``: scheduled but not yet settled tokens, which a sliding layer keeps beyond its window.
    ``encoder_tokens``: what cross attention looks at. ``state_element_bytes``: what a number of a recurrent state takes at
    least (on CPUs with bfloat16 instructions vLLM keeps them in float32).
    """

    dtype_bytes: int
    tensor_parallel: int = 1
    block_size: int = GPU_BLOCK
    in_flight_tokens: int = 0
    encoder_tokens: int = 0
    state_element_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Equal layers: ``page`` bytes hold ``block_size`` tokens of one of them."""

    kind: AttentionKind
    layers: int
    page: int
    block_size: int
    window: int = 0
    states: int = 1
    compressed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """How the cache is cut: ``block_bytes`` of the pool go at once; ``tables`` groups of each kind draw from it."""

    block_bytes: int
    tables: tuple[tuple[int, Rows], ...]
    settings: KvSettings

    def blocks(self, tokens: int) -> int:
        """Blocks of one sequence of ``tokens`` tokens."""
        return sum(count * _blocks_of(rows, tokens, self.settings) for count, rows in self.tables)

    def bytes(self, tokens: int) -> int:
        """Bytes of one sequence of ``tokens`` tokens."""
        return self.blocks(tokens) * self.block_bytes

    def tokens(self, size: int, max_model_len: int) -> int:
        """What vLLM logs as "KV cache size" for a cache of ``size`` bytes: whole blocks, shared by full-length requests."""
        blocks = self.blocks(max_model_len)
        return int(size // self.block_bytes / blocks * max_model_len) if blocks else 0


def default_block_size(language: LanguageModel, device: DeviceKind) -> int:
    """Tokens in a block, as vLLM chooses where nobody says: 16 on a GPU, 128 on the CPU, for MLA 16 there too."""
    if device is not DeviceKind.HOST:
        return GPU_BLOCK
    return CPU_LATENT_BLOCK if any(g.kind is AttentionKind.LATENT for g in language.groups) else CPU_BLOCK


def kv_bytes_per_token(language: LanguageModel, *, kv_dtype_bytes: int, tensor_parallel: int = 1) -> int:
    """Bytes that one more token of a long sequence costs, on each device.

    1. Full attention: keys and values of every KV head (of this rank's: a head is never split, and repeated where there are
       more ranks than heads).
    2. MLA: its one latent vector; every rank has all of it. Where several tokens share a vector, their part of it.
    3. A sliding layer beyond its window, a recurrent state, cross attention: nothing more.

    Llama-3.1-8B: 32 layers × 8 heads × (128 + 128) × 2 bytes = 131,072.
    """
    settings = KvSettings(dtype_bytes=kv_dtype_bytes, tensor_parallel=tensor_parallel, block_size=1)
    return sum(group.layers * _page(group, settings) for group in language.groups if group.kind in _PER_TOKEN)


def kv_bytes(
    language: LanguageModel,
    *,
    tokens: int,
    sequences: int,
    kv_dtype_bytes: int,
    tensor_parallel: int = 1,
    block_size: int = GPU_BLOCK,
    in_flight_tokens: int = 0,
    encoder_tokens: int = 0,
) -> int:
    """Bytes on each device that ``sequences`` sequences of ``tokens`` tokens each need, in whole blocks.

    A sliding layer counts at most its window (and what is in flight), a recurrent one a constant per sequence, cross
    attention its encoder's length.
    """
    settings = KvSettings(
        dtype_bytes=kv_dtype_bytes,
        tensor_parallel=tensor_parallel,
        block_size=block_size,
        in_flight_tokens=in_flight_tokens,
        encoder_tokens=encoder_tokens,
    )
    return sequences * pool_of(language, settings).bytes(tokens)


def kv_tokens(
    language: LanguageModel,
    *,
    kv_bytes: int,
    max_model_len: int,
    kv_dtype_bytes: int,
    tensor_parallel: int = 1,
    block_size: int = GPU_BLOCK,
    in_flight_tokens: int = 0,
) -> int:
    """What vLLM logs as "KV cache size: N tokens" when its cache has ``kv_bytes``; 0 where nothing is kept of a token."""
    settings = KvSettings(
        dtype_bytes=kv_dtype_bytes, tensor_parallel=tensor_parallel, block_size=block_size, in_flight_tokens=in_flight_tokens
    )
    return pool_of(language, settings).tokens(kv_bytes, max_model_len)


def pool_of(language: LanguageModel, settings: KvSettings) -> Pool:
    """How vLLM cuts the cache (and remembered: a plan asks again and again).

    1. Nothing is remembered: no pool.
    2. All layers keep the same tokens (all full or latent, or all of one window, or all recurrent): one group, a block is one
       page of each layer.
    3. Else pages are made equally large (more tokens to a block, or padding) and layers are dealt into groups of the size of
       the rarest kind; a block is one page of each layer of a group.
    """
    return _pool_of(language.groups, settings)


@lru_cache(maxsize=4096)
def _pool_of(groups: tuple[LayerGroup, ...], settings: KvSettings) -> Pool:
    rows = [_rows(group, settings) for group in groups if group.kind not in _KEEPS_NOTHING and group.layers]
    rows = [row for row in rows if row.page]
    if not rows:  # 1
        return Pool(block_bytes=1, tables=(), settings=settings)
    if len({_tokens_kept(row) for row in rows}) == 1:  # 2
        return Pool(block_bytes=sum(row.layers * row.page for row in rows), tables=((1, rows[0]),), settings=settings)
    rows = _merge(_level(rows, settings))  # 3
    rarest, commonest = min(row.layers for row in rows), max(row.layers for row in rows)
    size = commonest if commonest < rarest * 1.5 else rarest
    tables = tuple((-(-row.layers // size), row) for row in rows)
    return Pool(block_bytes=size * rows[0].page, tables=tables, settings=settings)


def _rows(group: LayerGroup, settings: KvSettings) -> Rows:
    return Rows(
        kind=group.kind,
        layers=group.layers,
        page=_page(group, settings),
        block_size=settings.block_size,
        window=group.window or 0,
        compressed=group.compression > 1,
    )


def _page(group: LayerGroup, settings: KvSettings) -> int:
    """Bytes of one layer's block."""
    ranks = settings.tensor_parallel
    match group.kind:
        case AttentionKind.LATENT:
            return -(-settings.block_size * group.latent_width * settings.dtype_bytes // group.compression)
        case AttentionKind.RECURRENT:
            return -(-max(group.state_bytes, group.state_elements * settings.state_element_bytes) // ranks)
        case AttentionKind.NONE:
            return 0
    heads = max(1, -(-group.kv_heads // ranks)) if group.kv_heads else 0
    width = group.head_size + (group.value_head_size or group.head_size)
    return settings.block_size * heads * width * settings.dtype_bytes


def _tokens_kept(row: Rows) -> tuple[object, ...]:
    """Equal for layers that keep the same tokens."""
    match row.kind:
        case AttentionKind.FULL | AttentionKind.LATENT:
            return (AttentionKind.FULL, row.compressed)
        case AttentionKind.SLIDING:
            return (row.kind, row.window)
        case AttentionKind.RECURRENT:
            return (row.kind, row.page)
    return (row.kind,)


def _level(rows: list[Rows], settings: KvSettings) -> list[Rows]:
    """Pages of one size, as large as the largest."""
    attention = [row for row in rows if row.kind is not AttentionKind.RECURRENT]
    state = max((row.page for row in rows if row.kind is AttentionKind.RECURRENT), default=0)
    if attention and state:  # the attention's block grows until its page holds a state
        a_token = max(row.page // row.block_size for row in attention)
        block = max(settings.block_size, -(-state // (a_token * settings.block_size)) * settings.block_size)
        rows = [
            replace(row, states=2)
            if row.kind is AttentionKind.RECURRENT
            else replace(row, page=row.page // row.block_size * block, block_size=block)
            for row in rows
        ]
    largest = max(row.page for row in rows)

    def fill(row: Rows) -> int:
        """How many of its pages lie in one of the largest; of those that are padded, one."""
        return largest // row.page if row.compressed or largest % row.page == 0 else 1

    return [replace(row, page=largest, block_size=row.block_size * fill(row)) for row in rows]


def _merge(rows: list[Rows]) -> list[Rows]:
    """Equal kinds together, however many groups they came in."""
    layers: dict[Rows, int] = {}
    for row in rows:
        alone = replace(row, layers=0)
        layers[alone] = layers.get(alone, 0) + row.layers
    return [replace(row, layers=count) for row, count in layers.items()]


def _blocks_of(rows: Rows, tokens: int, settings: KvSettings) -> int:
    """Blocks that one group of layers takes for a sequence."""
    match rows.kind:
        case AttentionKind.RECURRENT:
            return rows.states
        case AttentionKind.SLIDING if rows.window:
            kept = min(rows.window - 1 + settings.in_flight_tokens, tokens)
            return -(-kept // rows.block_size) + 1  # the window rarely begins where a block does
        case AttentionKind.CROSS:
            return -(-settings.encoder_tokens // rows.block_size)
    return -(-tokens // rows.block_size)
