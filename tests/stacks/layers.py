"""What an image's layers must not hold: keys, credentials, and what the machine that built it needed to do so."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.servers import images

NAMES = {
    "pip.conf",
    ".netrc",
    ".git-credentials",
    ".pypirc",
    ".npmrc",
    "id_rsa",
    "id_ed25519",
    "id_ecdsa",
    "api_key",
    "tls_key",
    "client_key",
}
PLACES = re.compile(r"/(\.cache/(pip|uv|huggingface)|\.ssh|\.aws|\.git)/|/var/lib/apt/lists/.+Packages")
ENDINGS = {".pem", ".crt", ".key", ".conf", ".env", ".json", ".toml", ".ini", ""}
WORDS = re.compile(
    r"^(PIP_|UV_|HTTPS?_PROXY|ALL_PROXY|SSL_CERT|REQUESTS_CA|CURL_CA|HF_TOKEN)|_TOKEN=|_PASSWORD=|_SECRET=|API_KEY=", re.IGNORECASE
)
PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s(.+?)-----END", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    where: str
    why: str


def folders(image: images.Image) -> list[Path]:
    """Each layer's own files as the storage keeps them, the newest first. Raises KeyError where it keeps none (Docker's newer store)."""
    data = image.inspect()["GraphDriver"]["Data"]
    return [Path(one) for key in ("UpperDir", "LowerDir") for one in data.get(key, "").split(":") if one]


def files(image: images.Image) -> Iterator[tuple[Path, str]]:
    """(file, its path in the image) of every layer, the deleted and the overwritten ones too."""
    for layer in folders(image):
        for folder, _, names in os.walk(layer):
            for name in names:
                path = Path(folder) / name
                yield path, f"/{path.relative_to(layer)}"


def machines_own() -> set[str]:
    """Certificates that this machine trusts and Debian does not know: those of its own network."""

    def read(path: Path) -> set[str]:
        return {"".join(found.split()) for found in PEM.findall(path.read_text(errors="replace"))}

    names = [os.environ.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    ours = set().union(*(read(Path(name)) for name in names if name and Path(name).is_file()), set())
    known = set().union(*(read(path) for path in Path("/usr/share/ca-certificates").rglob("*.crt")), set())
    return ours - known if known else set()


def suspicious(image: images.Image) -> list[Finding]:
    own, found = machines_own(), []
    count = 0
    for path, inside in files(image):
        count += 1
        if path.name in NAMES or PLACES.search(inside):
            found.append(Finding(inside, "a file that belongs to a machine or a user"))
        if path.suffix not in ENDINGS or path.is_symlink() or not path.is_file() or path.stat().st_size > 2_000_000:
            continue
        text = path.read_text(errors="replace")
        if re.search(r"^-----BEGIN [A-Z ]*PRIVATE KEY-----", text, re.MULTILINE):
            found.append(Finding(inside, "a private key"))
        if own and any("".join(one.split()) in own for one in PEM.findall(text)):
            found.append(Finding(inside, "a certificate of this machine"))
    assert count > 1000, f"only {count} files were looked at"
    about = image.inspect()["Config"]
    lines = [*(about.get("Env") or []), *(f"{key}={value}" for key, value in (about.get("Labels") or {}).items())]
    return [*found, *(Finding("the image's settings", line) for line in lines if WORDS.search(line))]
