"""Data: files → rows → examples → token ids. `tokenizers` and pyarrow are imported where needed, torch never."""
