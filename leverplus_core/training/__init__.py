"""Training of the selector: one loop (`loop.fit`), three losses (`sft`, `rce`, `grpo`); `settings` needs no torch."""
