"""The genome and the windows that the tests of variants share."""

from __future__ import annotations

import pytest
from support.variant_cases import GENES, promoters_of, random_genome

from promoter.dataset.genome import Genome
from promoter.dataset.promoters import Promoters


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return random_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def promoters(genome: Genome) -> Promoters:
    return promoters_of(genome, GENES, 50, 10)
