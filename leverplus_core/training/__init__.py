"""Training of the selector: one loop (`loop.fit`), three losses (`sft`, `rce`, `grpo`), their `settings` free of torch."""
