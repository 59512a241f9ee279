"""The Triton kernels: equal to their torch forms in Triton's interpreter, and compiled for a GPU without one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed (it comes with CUDA)")

EQUAL = """
import torch
from torch.testing import assert_close
from leverplus_models.engine import fused, triton_kernels as kernels

torch.manual_seed(0)
for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
    def check(found, expected):
        assert_close(found, expected, atol=bound, rtol=bound)
    x, weight = torch.randn(7, 96, dtype=dtype), torch.randn(96, dtype=dtype)
    check(kernels.rms_norm(x, weight, 1e-6), fused.rms_norm(x, weight, 1e-6))
    both = torch.randn(5, 6000, dtype=dtype)
    check(kernels.silu_times(both), fused.silu_times(both))
    for heads, keys, width in ((16, 2, 128), (4, 4, 80), (0, 2, 64), (3, 0, 32)):
        made = torch.randn(9, (heads + 2 * keys) * width, dtype=dtype)
        cos, sin = torch.randn(2, 9, width, dtype=dtype)
        query = [torch.full((9, heads, width), float("nan"), dtype=dtype) if heads else None for _ in range(2)]
        pair = [torch.full((9, 2, keys, width), float("nan"), dtype=dtype) if keys else None for _ in range(2)]
        kernels.rotate(made, cos, sin, query[0], pair[0])
        fused.rotate(made, cos, sin, query[1], pair[1])
        for found, expected in (query, pair):
            if found is not None:
                check(found, expected)
"""

COMPILED = """
import os
from pathlib import Path
from leverplus_models.engine import fused
assert fused._triton() is not None
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from leverplus_models.engine import triton_kernels as kernels

def build(kernel, types, fixed):
    places = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
    source = ASTSource(fn=kernel, signature={**types, **dict.fromkeys(fixed, "constexpr")}, constexprs=places)
    assert compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]

bf16 = "*bf16"
build(kernels._rms_norm, {"x": bf16, "weight": bf16, "out": bf16, "epsilon": "fp32"}, {"size": 96, "block": 128})
build(kernels._silu_times, {"both": bf16, "out": bf16, "size": "i32"}, {"block": 2048})
for heads, keys in ((16, 2), (0, 2), (16, 0)):
    blocks = {"head_block": 32, "value_block": 2, "half_block": 64}
    types = dict.fromkeys(("made", "cos", "sin", "query", "both"), bf16)
    build(kernels._rotate, types, {"heads": heads, "keys": keys, "half": 40, **blocks})
kept = Path(os.environ["LEVERPLUS_CACHE"], "triton")
assert len(list(kept.rglob("*.cubin"))) == 5
"""


@pytest.mark.parametrize("interpreted", [True, False], ids=["equal to torch", "compiled for a GPU"])
def test_kernels_are_what_torch_computes_and_a_gpu_takes_them(interpreted: bool, tmp_path: Path) -> None:
    """A process of its own: Triton reads the variable when imported. What is compiled is kept and said once."""
    environment = {**os.environ, "LEVERPLUS_CACHE": str(tmp_path)} | ({"TRITON_INTERPRET": "1"} if interpreted else {})
    environment.pop("TRITON_CACHE_DIR", None)
    code = EQUAL if interpreted else COMPILED
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("compiling kernels for this GPU, once" in done.stderr) == (not interpreted)
