"""Find pairs of windows that may share an element: spaced seeds on either strand, then the matches around them.

Two sequences agree at the positions of a spaced seed where they have a common origin, even if bases between have
changed. Each seed here reads the same backwards and has a middle base. So a word and its reverse complement, of
which one has A or C in the middle, share a bucket, and its pairs are compared once for both strands. The 64 bases
around each word lie in three 64-bit numbers, so a pair's matches take a few instructions to count.
"""

from __future__ import annotations

import numpy as np

from promoter.splits.compiled import bit_planes, compiled, in_threads, threads

# Weight 11: of 4·10^7 random bases, a word is shared by 19, which takes a second a seed. Chosen one after the
# other from 400 random ones to hit most of 4,000 pairs of 100 bases at 75% identity. Together they hit 99% of
# others, the first alone 86%, 11 bases in a row 66%.
SEEDS = (
    "11110010101001111",
    "1010110010001000100110101",
    "101001100001010100001100101",
    "1001001111111001001",
    "10110010001110001001101",
    "1110001000011100001000111",
    "100111000001010100000111001",
    "1010011100001000011100101",
)
_WEIGHT = 11
LINKS = 32  # entries after each of a bucket with which it is compared, beside twice the mean of all buckets
_MIN_MATCHES = 36  # of the 64 bases around a word: 11 + 53/4 = 24 ± 3 by chance, 51 ± 3 at 75% identity
_X_DROP = 8  # an ungapped extension ends this far below its best score
_BIN = 32  # bases: diagonals of one bin are one candidate
_REGION = 64  # bases of a window that have some candidates of their own, however many its other regions have
_PER_REGION = 16  # candidates of a region that are aligned, at least; all pairs of 20,000 copies of Alu: 2·10^8
_PER_SEED = 8  # candidates of a region that one seed finds, at least
_BUCKET_BITS = 22  # twice as many buckets as words on either strand; words that share one share few bases around
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth's multiplicative hashing)
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)


def candidates(tokens: np.ndarray, min_score: int, min_ungapped: int) -> dict[str, np.ndarray]:
    """Find pairs of windows with an ungapped alignment around a spaced seed: matches less mismatches.

    A position is compared with all others in its bucket, or with the next `LINKS` and twice the mean
    of all buckets; of the candidates of a region, some are kept. So an element in very many windows costs time in
    proportion to these, not to their square.

    Args:
        tokens: the windows: uint8, shape (N, length); what is N is no seed and counts neither as match nor as
            mismatch.
        min_score: smallest score, matches less mismatches and gaps, of an alignment that is looked for; where
            fewer than 64 bases can be compared around a word, it needs no more matches.
        min_ungapped: smallest score of the ungapped alignment.

    Returns:
        Columns of equal length, a candidate each, in order: rows `i` < `j`; a pair of matching bases `x` in i and
        `y` in j; `opposite`: 1 if they match on opposite strands, else 0. A pair of windows may have several.
    """
    n, length = tokens.shape
    seeds = [seed for seed in SEEDS if len(seed) <= length]
    if 0 < length < len(SEEDS[0]):
        seeds = ["1" * min(length - (length + 1) % 2, _WEIGHT)]
    columns = ("i", "j", "x", "y", "opposite")
    if n < 2 or not seeds:
        return {name: np.zeros(0, np.int64) for name in columns}
    planes = bit_planes(tokens)
    workers = min(threads(), len(seeds))
    tables = in_threads(
        _search_seeds,
        [(tokens, planes, seeds[worker::workers], min_score, min_ungapped) for worker in range(workers)],
    )
    keys, values = (np.concatenate(column) for column in zip(*tables, strict=True))
    order = np.lexsort((values, keys))
    keys, values = keys[order], values[order]
    last = np.append(keys[1:] != keys[:-1], np.ones(len(keys[:1]), bool))  # the best of each
    keys, values = keys[last].astype(np.int64), values[last].astype(np.int64)
    pair, opposite = np.divmod(keys // (2 * length // _BIN + 1), 2)
    i, j = np.divmod(pair, n)
    found = np.stack([i, j, values >> 20 & 0xFFFFF, values & 0xFFFFF, opposite])
    drawn = np.argsort(
        keys.astype(np.uint64) * _GOLDEN, kind="stable"
    )  # in an order that is random, and always the same
    kept = np.zeros(len(keys), bool)
    kept[drawn] = _are_few(found[:4, drawn], np.zeros((n, length // _REGION + 1), np.int32))
    return dict(zip(columns, found[:, kept], strict=True))


def _search_seeds(  # noqa: PLR0917 # called from threads
    tokens: np.ndarray, planes: np.ndarray, seeds: list[str], needed: int, min_score: int
) -> tuple[np.ndarray, np.ndarray]:
    """Search with some seeds, one after the other: each by itself, as it may be shared out among threads."""
    n, length = tokens.shape
    found = [(np.zeros(0, np.uint64), np.zeros(0, np.uint64))]
    stride = (planes.shape[1] - 2) // n * 64
    entry = np.uint32 if n * stride < 1 << 31 else np.int64
    ends, entries = np.zeros(1 << _BUCKET_BITS, entry), np.empty(tokens.size, entry)
    links = LINKS + 2 * tokens.size // len(ends)
    for seed in seeds:
        ends[:] = 0
        mask = np.uint64(sum(3 << 2 * at for at, needed in enumerate(seed) if needed == "1"))
        shift = np.uint64(64 - _BUCKET_BITS)
        largest = _sort_words(tokens, stride, len(seed), mask, shift, ends, entries)
        counts = np.zeros((n, length // _REGION + 1), np.int32)
        keys, values = _compare(tokens, planes, ends, entries, largest, links, needed, min_score, counts)
        found.append((keys[keys != _NONE], values[keys != _NONE]))
    keys, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return keys, values


@compiled
def _sort_words(tokens, stride, span, mask, shift, ends, entries):  # noqa: PLR0917 # numba cannot take names
    """Sort positions by bucket, in the order of the windows; return the size of the largest bucket.

    An entry is the middle of a word, times two, plus 1 if the word with A or C there is on the other strand.
    `ends` becomes the end of each bucket.
    """
    n, length = tokens.shape
    middle, top = span // 2, np.uint64(2 * (span - 1))
    largest = np.int64(0)
    for filling in (False, True):
        for row in range(n):
            forward = reverse = np.uint64(0)
            free = 0
            for last in range(length):
                token = np.uint64(tokens[row, last])
                forward = forward << np.uint64(2) | token & np.uint64(3)
                reverse = reverse >> np.uint64(2) | (np.uint64(3) - (token & np.uint64(3))) << top
                free = 0 if token > np.uint64(3) else free + 1
                if free < span:
                    continue
                at = last - middle
                opposite = tokens[row, at] > 1
                word = (reverse if opposite else forward) & mask
                bucket = np.int64(word * _GOLDEN >> shift)
                if filling:
                    index = ends[bucket]
                    entries[index] = (row * stride + at) << 1 | opposite
                    ends[bucket] = index + 1
                else:
                    ends[bucket] += 1
        if not filling:
            start = np.int64(0)
            for bucket in range(len(ends)):
                size = np.int64(ends[bucket])
                ends[bucket] = start
                start += size
                largest = max(largest, size)
    return largest


@compiled
def _compare(tokens, planes, ends, entries, largest, links, needed, min_score, counts):  # noqa: PLR0912, PLR0917 # likewise; numba inlines no helper that may skip a pair
    """Compare the entries of each bucket; put pairs with an ungapped alignment into a table of candidates."""
    n, length = tokens.shape
    few = min(_MIN_MATCHES, needed)
    keys, values = np.full(1 << 12, _NONE), np.zeros(1 << 12, np.uint64)
    used = 0
    stride = (planes.shape[1] - 2) // n * 64
    bins = 2 * length // _BIN + 1
    around = np.empty((max(largest, 1), 3), np.uint64)
    start = np.int64(0)
    for bucket in range(len(ends)):
        end = np.int64(ends[bucket])
        if end - start > 1:
            for index in range(end - start):
                _load(planes, np.int64(entries[start + index]), around[index])
        for first in range(end - start - 1):
            low, high, valid = around[first, 0], around[first, 1], around[first, 2]
            for second in range(first + 1, min(end - start, first + 1 + links)):
                same = ~((low ^ around[second, 0]) | (high ^ around[second, 1])) & valid & around[second, 2]
                matches = _count_bits(same)
                if matches < _MIN_MATCHES and (matches < few or valid & around[second, 2] == _NONE):
                    continue  # where fewer than 64 bases are compared, fewer need match
                one, other = np.int64(entries[start + first]), np.int64(entries[start + second])
                i, x = divmod(one >> 1, stride)
                j, y = divmod(other >> 1, stride)
                if i == j:
                    continue
                if i > j:
                    i, x, j, y = j, y, i, x
                opposite = (one ^ other) & 1
                diagonal = x + y if opposite else y - x + length
                key = np.uint64(((i * n + j) * 2 + opposite) * bins + diagonal // _BIN)
                value = np.uint64(matches << 40 | x << 20 | y)  # the largest is kept, in whatever order they come
                slot = _slot(keys, key)
                new = keys[slot] == _NONE
                if new:
                    if counts[i, x // _REGION] >= _PER_SEED and counts[j, y // _REGION] >= _PER_SEED:
                        continue
                elif values[slot] >= value:
                    continue
                if _ungapped(tokens, i, x, j, y, opposite) < min_score:
                    continue
                keys[slot], values[slot] = key, value
                if new:
                    used += 1
                    counts[i, x // _REGION] += 1
                    counts[j, y // _REGION] += 1
                if 2 * used > len(keys):
                    keys, values = _double(keys, values)
        start = end
    return keys, values


@compiled
def _load(planes, entry, target):
    """Write the planes of 64 bases, an entry's middle the 33rd of them; reversed for the other strand."""
    opposite = entry & 1
    at = (entry >> 1) + 32 + opposite
    number, shift = at >> 6, np.uint64(at & 63)
    for plane in range(3):
        bits = planes[plane, number] >> shift
        if shift:
            bits |= planes[plane, number + 1] << (np.uint64(64) - shift)
        if opposite:
            bits = _reverse_bits(bits)
            if plane < 2:  # the complement of a base has both bits flipped
                bits = ~bits
        target[plane] = bits


@compiled
def _ungapped(tokens, i, x, j, y, opposite):  # noqa: PLR0917 # likewise
    """Return the score of the best ungapped alignment that contains a pair of matching bases."""
    length = tokens.shape[1]
    total = 1
    for direction in (1, -1):
        score = best = 0
        step = -direction if opposite else direction
        at, other = x + direction, y + step
        while 0 <= at < length and 0 <= other < length and score > best - _X_DROP:
            first, second = tokens[i, at], tokens[j, other]
            if first < 4 and second < 4:
                score += 1 if first == (3 - second if opposite else second) else -1
                best = max(best, score)
            at += direction
            other += step
        total += best
    return total


@compiled
def _are_few(pairs, counts):
    """Tell which candidates to keep: those of which one of the two regions has fewer than `_PER_REGION` so far."""
    kept = np.zeros(pairs.shape[1], np.bool_)
    for number in range(pairs.shape[1]):
        i, j, x, y = pairs[0, number], pairs[1, number], pairs[2, number] // _REGION, pairs[3, number] // _REGION
        if counts[i, x] < _PER_REGION or counts[j, y] < _PER_REGION:
            counts[i, x] += 1
            counts[j, y] += 1
            kept[number] = True
    return kept


@compiled
def _slot(keys, key):
    """Return where a key is in the table, or may be put."""
    mask = len(keys) - 1
    slot = np.int64(key * _GOLDEN >> np.uint64(24)) & mask
    while keys[slot] != _NONE and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@compiled
def _double(keys, values):
    """Return a table of twice the size with the same content."""
    more_keys, more_values = np.full(2 * len(keys), _NONE), np.zeros(2 * len(keys), np.uint64)
    for old in range(len(keys)):
        if keys[old] != _NONE:
            slot = _slot(more_keys, keys[old])
            more_keys[slot], more_values[slot] = keys[old], values[old]
    return more_keys, more_values


@compiled
def _count_bits(bits):
    bits -= bits >> np.uint64(1) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + (bits >> np.uint64(2) & np.uint64(0x3333333333333333))
    bits = bits + (bits >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(bits * np.uint64(0x0101010101010101) >> np.uint64(56))


@compiled
def _reverse_bits(bits):
    for shift, mask in (
        (np.uint64(1), np.uint64(0x5555555555555555)),
        (np.uint64(2), np.uint64(0x3333333333333333)),
        (np.uint64(4), np.uint64(0x0F0F0F0F0F0F0F0F)),
        (np.uint64(8), np.uint64(0x00FF00FF00FF00FF)),
        (np.uint64(16), np.uint64(0x0000FFFF0000FFFF)),
    ):
        bits = bits >> shift & mask | (bits & mask) << shift
    return bits >> np.uint64(32) | bits << np.uint64(32)
