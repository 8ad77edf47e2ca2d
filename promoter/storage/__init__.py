"""Files on a disk or in a bucket: the same calls for local paths and for `s3://`, `gs://` and other stores.

Outputs are atomic: complete or absent. The store's library retries transient errors (status 500 and 503, dropped
connections); others raise `StorageError`.
"""

from promoter.storage.atomic import Outputs, atomic_path, open_atomic, remove_folder
from promoter.storage.checks import probe_file, require_file, require_writable
from promoter.storage.compression import compression, first_bytes, open_bytes, require_end_of_bgzip
from promoter.storage.disk import (
    disk_error,
    disk_errors,
    find_disk_error,
    fix_of_disk,
    full_folders,
    temporary_file,
)
from promoter.storage.formats import (
    Checksums,
    copy_file,
    open_table,
    open_table_writer,
    open_whole_table,
    read_json,
    read_table_metadata,
    read_yaml,
    sha256,
    write_json,
    write_table,
    write_tables,
    write_text,
    write_yaml,
)
from promoter.storage.paths import AnyPath, is_local, resolve
from promoter.storage.pipes import is_copy_of_pipe
from promoter.storage.remote import arrow_filesystem, fix_hint, is_store_error, wrap_store_errors
from promoter.storage.text import decode, open_text, text_encoding
