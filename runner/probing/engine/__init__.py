"""The local engine: replies of one checkpoint, many questions at a time, equal to asking each alone.

One call of `Engine.generate`:
  1. questions become rows of token ids (`prompts`), and rows that share their beginning a group (`rows`);
  2. the shared beginning is prefilled once, and every row gets a place for its keys and values (`places`); models whose
     attention is not plain have a padded batch instead (`padded`);
  3. tokens are chosen (`choosing`) until replies end (`endings`); finished rows leave, waiting ones take their places
     (`answering`);
  4. closed questions are scored without generating (`closed`);
  5. rows whose choice hung by less than rounding, which `agreement` measures, are asked again alone.
"""

import os

# read as torch is imported: threads that spin while they wait made a batch 4 to 8 times slower beside a busy process
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from runner.probing.engine.adapters import why_apart
from runner.probing.engine.local import DEFAULT_BATCH_TOKENS, NAME, VERSION, Engine

__all__ = ["DEFAULT_BATCH_TOKENS", "NAME", "VERSION", "Engine", "why_apart"]
