"""Count the operations that exact saturation mutagenesis of a CNN cannot avoid."""

from __future__ import annotations

from promoter.models.config import CNNConfig


def operations(config: CNNConfig, length: int) -> float:
    """Count the floating-point operations of a sequence's matrix products, which no exact way avoids: the floor.

    Args:
        config: configuration of the network.
        length: number of bases, all of them mutated.

    Returns:
        Multiplications and additions of the changed cells of each later convolution's input with all its
        taps, for the three mutants of each base; ends, where fewer cells change, counted as the middle.
    """
    length -= config.outside(length)
    total, cells = 0.0, 1.0
    inputs = (0, *config.channels)  # the first convolution takes none
    for block, (outputs, kernel) in enumerate(zip(config.channels, config.kernel_sizes, strict=True)):
        total += 2 * cells * kernel * inputs[block] * outputs
        cells += kernel - 1
        if block < len(config.pool_sizes):
            # cells that a region of this length touches, averaged over its offsets from the grid of the pool
            cells = (cells - 1) / config.pool_sizes[block] + 1
    return total * 3 * length * (2 if config.both_strands else 1)
