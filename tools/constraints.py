"""Write constraints.txt: the exact versions of one resolution of all extras (`make constraints`)."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "model,train,openai,gemma,gcp,s3,demo,bench,test"
PINNED = ("torch==2.13.0",)
HEADER = "# The versions tested, of every extra. Written by `make constraints`.\n"


def main() -> None:
    """Let pip resolve the extras, without installing anything, and write the file."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", report.name, f"{ROOT}[{EXTRAS}]", *PINNED], check=True)
        found = json.loads(Path(report.name).read_text())["install"]
    pins = sorted(f"{p['metadata']['name'].lower()}=={p['metadata']['version']}" for p in found)
    lines = [pin for pin in pins if not pin.startswith("cappy-at-scale==")]
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
