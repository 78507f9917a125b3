"""Serve the verifiers by HTTP: `python3 -m riskpo_openrlhf.cli.serve_verifiers --port 8000`.

Train with `--reward.remote_url http://HOST:8000/get_reward`. Several addresses, separated by commas, share the load.
Whoever reaches the port can run code in the sandbox: keep it inside the cluster.
"""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    parser.add_argument("--threads", type=int, default=16, help="responses graded in parallel (default: 16)")
    parser.add_argument("--max_items", type=int, default=1024, help="most responses in a request (default: 1024)")
    parser.add_argument(
        "--max_megabytes", type=int, default=64, help="size of the largest request, in MiB (default: 64)"
    )
    args = parser.parse_args(argv)
    for name in ("threads", "max_items", "max_megabytes"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} is not allowed: at least 1")
    try:
        import uvicorn

        from riskpo_openrlhf.verifiers.server import create_app
    except ModuleNotFoundError as error:
        print(f"serve_verifiers: {error}; pip install fastapi uvicorn", file=sys.stderr)
        return 2
    app = create_app(args.threads, args.max_items, args.max_megabytes * 2**20)
    print(f"Verifiers: http://{args.host}:{args.port}/get_reward", flush=True)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
