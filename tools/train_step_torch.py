#!/usr/bin/env python3
"""Times the training step of `nibble bench DIR --train` (mode sft) in PyTorch on a CPU, for comparison by hand.

    pip install torch transformers
    tools/train_step_torch.py models/tiny-voice --threads 2

The model is transformers' own Qwen3.5 in f32; a step is forward, cross-entropy over all tokens, backward, clipping to
norm 1 and AdamW. The median of the steps counts. One JSON document is printed.
"""
import argparse
import json
import statistics
import time

import torch
import transformers


def sgemm_gflop_s(side=2048, repeats=5):
    a, b = torch.ones(side, side), torch.ones(side, side)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2e-9 * side**3 / statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.dir, dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, fused=True)
    ids = torch.randint(0, model.config.vocab_size, (args.batch, args.length))

    def step():
        optimizer.zero_grad()
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    step()
    seconds = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    print(json.dumps({
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model": type(model).__name__,
        "threads": torch.get_num_threads(),
        "sequences": args.batch,
        "length": args.length,
        "step_ms": median * 1e3,
        "tok_s": args.batch * args.length / median,
        "sgemm_gflop_s": sgemm_gflop_s(),
    }))


if __name__ == "__main__":
    main()
