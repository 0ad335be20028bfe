"""Starts llm-sim and a gateway, runs a command with XROUTER_URL and XROUTER_KEY, stops both."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
os.environ["XROUTER_BUILD"] = sys.argv[1]

from harness import BUILD, Gateway, Sim, private_directory, remove_directory  # noqa: E402


def main():
    directory = private_directory()
    sim = Sim(directory).start()
    gateway = Gateway(directory, sim, tls=True)
    gateway.config["models"].append(
        {"id": "vectors", "kind": "embeddings", "candidates": [{"provider": "gigachat", "model": "Embeddings"}]}
    )
    (directory / "api.key").write_text("sk-sim")
    (directory / "api.key").chmod(0o600)
    for dialect, path, model in (("openai", "/openai/v1", "gpt"), ("anthropic", "/anthropic", "claude")):
        gateway.config["providers"].append(
            {"name": dialect, "type": dialect, "base_url": sim.url + path, "credentials": "file:api.key"}
        )
        gateway.config["models"].append(
            {"id": f"{dialect}/{model}", "candidates": [{"provider": dialect, "model": "GigaChat-2"}]}
        )
    gateway.write_config()
    try:
        gateway.start()
        environment = dict(
            os.environ,
            XROUTER_URL=f"https://localhost:{gateway.ports['https']}",
            XROUTER_KEY=gateway.key,
            XROUTER_CONFIG=str(gateway.file),
            XROUTERCTL=str(BUILD / "xrouterctl"),
            SIM_URL=sim.url,
            NODE_EXTRA_CA_CERTS=str(directory / "tls" / "cert.pem"),
        )
        return subprocess.run(sys.argv[2:], env=environment, check=False).returncode
    finally:
        gateway.stop()
        sim.stop()
        remove_directory(directory)


sys.exit(main())
