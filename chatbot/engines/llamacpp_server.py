"""The process that runs llama.cpp: `python -m chatbot.engines.llamacpp_server`, driven by `llamacpp`.

A process of its own, because loading a model holds the interpreter's lock for its whole length, because a
crash in native code must not take a conversation with it, and because its end gives all memory back.

It reads one JSON line of parameters from stdin, writes one JSON line with its `address` to stdout, and lives until
its stdin closes, which the kernel sees to when the parent is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys

ALONE = 2
"""Slots up to which text is guessed ahead: where more are answered at once, guesses take the others' time."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our stdin
    parameters = json.loads(sys.stdin.readline())

    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = parameters["path"]
    settings.n_parallel = parameters["slots"]
    settings.n_ctx = parameters["context"] * parameters["slots"]  # llama.cpp shares it out over the slots
    settings.cpuparams.n_threads = parameters["threads"] or cores()
    if "adapter" in parameters:
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(parameters["adapter"], 1.0)]
    if "alias" in parameters:
        settings.model_alias = {parameters["alias"]}
    if "chat_template" in parameters:
        settings.chat_template = parameters["chat_template"]
    if parameters.get("speculate") and parameters["slots"] <= ALONE:
        # Guess on from where the last few tokens stood before: summaries and edits repeat what they were given. Of
        # the kinds there are, this one alone looks through each conversation anew. On a CPU a guess costs half a
        # token, right or wrong: longer ones, or ones from less, are wrong too often to gain.
        settings.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        settings.speculative.ngram_simple.size_n = 4
        settings.speculative.ngram_simple.size_m = 4
    settings.api_keys = [parameters["key"]]
    settings.cache_ram_mib = 1024
    if "prompts" in parameters:
        settings.slot_save_path = parameters["prompts"] + os.sep
    settings.fit_params = False  # it would shrink the context silently
    settings.verbosity = 0
    settings.ui = False
    settings.endpoint_slots = False
    server = xllamacpp.Server(settings)
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.read()
    os._exit(0)  # replies under way are not worth waiting for


def cores() -> int:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
