"""A real llama.cpp server of the demo checkpoint, to try the part `served` with.

    python -m tools.demo_vlm.serve FOLDER

writes the checkpoint as GGUF into FOLDER, serves it on a free port of this machine, prints the address, and ends when
its standard input does. Needs the packages xllamacpp and gguf (`make install`). Everything is computed in float32, and
an image is four tokens, as the demo's own image processor makes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xllamacpp

from tools.demo_vlm.to_gguf import to_gguf

IMAGE_TOKENS = 4
SLOTS, SLOT_TOKENS = 2, 2048


def serve(folder: Path) -> xllamacpp.Server:
    """Start it; it ends with the process."""
    language, vision = to_gguf(folder)
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.mmproj.path = str(language), str(vision)
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.n_parallel, settings.n_ctx = SLOTS, SLOTS * SLOT_TOKENS
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.image_min_tokens = settings.image_max_tokens = IMAGE_TOKENS
    settings.warmup = settings.fit_params = settings.ui = False
    settings.verbosity = 1  # errors alone
    return xllamacpp.Server(settings)


if __name__ == "__main__":
    server = serve(Path(sys.argv[1]))
    print(server.listening_address, flush=True)
    sys.stdin.read()
