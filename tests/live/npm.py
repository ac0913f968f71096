"""Packages of npm in a throw-away folder."""

import shutil
import subprocess


def installed(source, folder):
    """Whether what the folder `source` wants could be put into `folder`, beside copies of its files."""
    if not shutil.which("node") or not shutil.which("npm"):
        print("skipped: no node or npm")
        return False
    for path in source.iterdir():
        shutil.copy(path, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"]
    try:
        result = subprocess.run([*command, "--loglevel=error"], cwd=folder, capture_output=True, timeout=600)
    except subprocess.TimeoutExpired:
        print(f"skipped: npm took over ten minutes for {source.name}")
        return False
    if result.returncode:
        print(f"skipped: npm could not install {source.name} ({result.stderr.decode()[-200:].strip()!r})")
    return result.returncode == 0
