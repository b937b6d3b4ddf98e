"""Importing this module loads what a prober needs, so that one forked from this process pays for none of it.

No tensor operation runs here: a process that has computed cannot be forked safely.
"""

import gc
import importlib.util

import pytest  # noqa: F401
import rich.console  # noqa: F401
import transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto
import transformers.models.qwen3.modeling_qwen3  # noqa: F401
from transformers import conversion_mapping

import runner.data.sources
import runner.probing.engine
import runner.probing.plugin
import runner.probing.session
import runner.probing.summary
import runner.recipe  # noqa: F401

# a thousand patterns, compiled at the first load of any model
conversion_mapping.get_checkpoint_conversion_mapping("qwen3")  # type: ignore[no-untyped-call]
if importlib.util.find_spec("hypothesis"):
    importlib.import_module("hypothesis")  # its pytest plugin imports it as a session ends: a second and more
gc.freeze()  # pytest collects garbage twice as it ends: half a second over all of torch's objects
