"""The search in layers finds what it is there for: also a file that a later layer deletes."""

from __future__ import annotations

from pathlib import Path

from layers import suspicious

from labkit.servers import images

LEAKS = """\
FROM docker.io/library/debian:bookworm-slim
RUN mkdir -p /home/me/.ssh && echo x > /home/me/.ssh/known_hosts
RUN printf -- '-----BEGIN PRIVATE KEY-----\\n' > /srv/server.pem
RUN rm /srv/server.pem
ENV PIP_INDEX_URL=https://packages.example.invalid SOME_API_KEY=1234
"""


def test_a_key_that_a_later_layer_deletes_is_found(tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(LEAKS, encoding="utf-8")
    image = images.build(tmp_path, "leaks")
    try:
        found = {row.where: row.why for row in suspicious(image)}
    finally:
        image.remove()
    assert found.pop("/srv/server.pem") == "a private key"
    assert found.pop("/home/me/.ssh/known_hosts") == "a file that belongs to a machine or a user"
    assert found == {"the image's settings": "SOME_API_KEY=1234"}
