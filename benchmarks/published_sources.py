"""The files of the published tables: addresses, checksums, and where a copy may lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pooch

from promoter import storage
from promoter.dataset import named
from promoter.dataset.named import Source
from promoter.errors import InputError
from promoter.sequence import encode, reverse_complement

_RAW = "https://raw.githubusercontent.com"
_ECOLI = f"{_RAW}/KosuriLab/ecoli_promoter_mpra/484abdb6ba2d398501009ee6eb25ca7f190d3b4c/processed_data"
_PLANTS = (
    f"{_RAW}/tobjores/Synthetic-Promoter-Designs-Enabled-by-a-Comprehensive-Analysis-of-Plant-Core-Promoters/"
    "fd211ee15cca1ff90ad1f9418caac728d39b3c69/CNN"
)
_YEAST = (
    f"{_RAW}/1edv/evolution/bf4a41983a82ac81b3ef60fa33fc0e253760c73d/manuscript_code/model/"
    "reproduce_test_data_performance"
)
_K12 = (
    f"{_RAW}/alondrayolotzin/Analisis_transcripcional_E.coli_S.pombe/"
    "8a7037fa7138768312508abb51dd7a2a98c09c7c/data/E_coli_MG1655"
)
# path in the folder of the data -> address of the folder at the source, SHA-256 of the file as it is served
SOURCES = {
    "ecoli_mpra/tss_expression_model_format.txt": (
        f"{_ECOLI}/endo_tss/lb/model_files",
        "bc8bc36e54648b0a50bef5608abc98704b530626282338560898ae8213c0f60f",
    ),
    "ecoli_mpra/tss_expression_model_format_train_genome_split.txt": (
        f"{_ECOLI}/endo_tss/lb/model_files",
        "a6d1bb6ccc33616e954ec96ef6cf9c18d531c2bbd150faaf6dec4f42dd030070",
    ),
    "ecoli_mpra/tss_expression_model_format_test_genome_split.txt": (
        f"{_ECOLI}/endo_tss/lb/model_files",
        "fd3bbc0fa3854501c9703f22047f38284df30d1893763a2abacf82943a550393",
    ),
    "ecoli_mpra/20191118_tss_scramble_peak_classification_hyperparam_tuned_predictions.txt": (
        f"{_ECOLI}/combined",
        "9fb250c26af54f7fefcf413b96a9151174f82e052766f9edd9790b3decf803c8",
    ),
    "ecoli_mpra/20191112_mlp_tss_3to6mer_scramble_peak_predictions.txt": (
        f"{_ECOLI}/combined",
        "df2a8ae224e7ff46efb565d4aed070492aaf405c3a718b3ea47e42f1bd2e7c77",
    ),
    "ecoli_mpra/20191111_rfr_tss_scramble_peak_floored_predictions.txt": (
        f"{_ECOLI}/combined",
        "90226676fad0497692698d8f4da8a9242eb2499ce0e9e1b7f3cb926a57ab86ec",
    ),
    "ecoli_mpra/scramble_merged_sites.txt": (
        f"{_ECOLI}/endo_scramble",
        "03ff3758f5ecbeb877a7797ae8bc80557b6ecf7ca66c7619ca538dd7daac9a70",
    ),
    "ecoli_genome/GCF_000005845.2_ASM584v2_genomic.fna.gz": (
        _K12,
        "a96d3cfa58c88d477013c768f90a11d2386d42a70d566abfb6d9013dcbd24255",
    ),
    "plant_core/CNN_test_leaf.tsv": (
        _PLANTS,
        "8015b4ee25564eb04f9fbe360dc349c599a95aadb5357845e8822ccc960e59c7",
    ),
    "plant_core/CNN_test_leaf_pred.tsv": (
        _PLANTS,
        "ebfd6c0f6f05711c9ecbd31b9fb5566c02a05ed59cf9d0e139b290854d5eb4c2",
    ),
    "yeast_mpra/Native_complex.csv": (
        _YEAST,
        "59d81b20739815108de4ecf095f78a96042685ee14ed32b95d3ae37242f569b0",
    ),
    "yeast_mpra/Random_complex.csv": (
        _YEAST,
        "d14fd0c396b1ff3687ad956f9163b1ae344c340fc5b9af79e99f2da818cae305",
    ),
    "yeast_mpra/Drift_complex.csv": (
        _YEAST,
        "cfe7f44734142f0ed57a31477b05e17c613992481d231e8c45540c3a34e14d77",
    ),
    "yeast_mpra/SSWM_complex.csv": (
        _YEAST,
        "e2e03462ded85a59529f2cab0588ae09bf23ae700b78738a6acb1032248357fd",
    ),
}


class Files:
    """Finds the files of the tables in a folder, or downloads them.

    Args:
        data: folder with a folder for each study, such as `ecoli_mpra`; None (default) downloads into the user's
            cache folder.
        on_download: function called with the name of each file before its download (default: does nothing).
    """

    def __init__(self, data: Path | None = None, on_download: Callable[[str], None] = lambda _: None) -> None:
        self.folder = Path(pooch.os_cache("promoter")) / "published" if data is None else data
        self.is_cache = data is None
        self.on_download = on_download

    def path(self, name: str) -> Path:
        """Return the path of a file of `SOURCES`, whose content is checked; it may be gzipped."""
        address, sha256 = SOURCES[name]
        folder, file = name.split("/")
        source = Source(file, f"{address}/{file}", sha256)
        return named.fetch(source, self.folder / folder, self.on_download, setting="data")

    def read(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read a table; NA stays text, for it is no missing value in these files.

        Args:
            name: name in `SOURCES`; a comma separates the columns of .csv, a tab all others.
            columns: names of the columns of a file without a header; None (default): it has one.
        """
        separator = "," if name.endswith(".csv") else "\t"
        header: dict[str, Any] = {} if columns is None else {"header": None, "names": list(columns)}
        return pd.read_csv(self.path(name), sep=separator, keep_default_na=False, **header)


def require(holds: bool, problem: str) -> None:
    """Raise InputError if something that is taken for granted of the files does not hold."""
    if not holds:
        raise InputError(f"the files are not what they were when this was written: {problem}")


def read_genome(files: Files) -> str:
    """Read the sequence of E. coli K-12 MG1655, U00096.3."""
    with storage.open_text(files.path("ecoli_genome/GCF_000005845.2_ASM584v2_genomic.fna.gz")) as lines:
        return "".join(line.strip().upper() for line in lines if not line.startswith(">"))


def place(sequences: Sequence[str], genome: str, word: int = 16) -> list[list[tuple[int, str]]]:
    """Find where sequences stand in a genome, for the coordinates in the files are those of another version.

    Args:
        sequences: sequences of at least `word` bases.
        genome: the genome's sequence.
        word: number of first bases that are looked for (default 16).

    Returns:
        Start and strand of each occurrence of each sequence.
    """
    tokens = encode([genome])[0].astype(np.int64)
    codes = _codes(np.lib.stride_tricks.sliding_window_view(tokens, word))
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    found: list[list[tuple[int, str]]] = [[] for _ in sequences]
    for strand, texts in (("+", [*sequences]), ("-", [str(reverse_complement(text)) for text in sequences])):
        wanted = _codes(encode([text[:word] for text in texts]).astype(np.int64))
        first, last = (np.searchsorted(ordered, wanted, side) for side in ("left", "right"))
        for number, text in enumerate(texts):
            starts = np.sort(order[first[number] : last[number]])
            found[number] += [(int(p), strand) for p in starts if genome.startswith(text, int(p))]
    return found


def _codes(words: np.ndarray) -> np.ndarray:
    """Number words of bases: int64, shape (N,)."""
    codes = np.zeros(len(words), np.int64)
    for column in range(words.shape[1]):
        codes = codes * 5 + words[:, column]
    return codes
