"""Videos and pictures by http: only where that is allowed, whole, and within limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from asking import ask
from langchain_core.messages.content import create_video_block

from videochat_tools import remote_media
from videochat_tools.chat_model import ChatVideoChat
from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError, UnsupportedContentError


def test_pictures_and_videos_by_http_only_where_that_is_allowed(
    model: ChatVideoChat, files_by_http: Callable[[Path], str], color_video: Path
) -> None:
    address = files_by_http(color_video.parent)
    block = create_video_block(url=f"{address}/colours.mp4#t=0,1.9")
    with pytest.raises(UnsupportedContentError, match="allow_remote=True"):
        model.invoke(ask(block))
    with pytest.raises(UnsupportedContentError, match="may be fetched from example.org, not from 127.0.0.1"):
        model.model_copy(update={"allow_remote": ("example.org",)}).invoke(ask(block))
    local = model.invoke(ask(create_video_block(url=str(color_video), start=0.0, end=1.9)))
    for allowed in (True, ("127.0.0.1",)):
        assert model.model_copy(update={"allow_remote": allowed}).invoke(ask(block)).content == local.content
    open_ = model.model_copy(update={"allow_remote": True})
    with pytest.raises(MediaNotFoundError, match="404"):
        open_.invoke(ask(create_video_block(url=f"{address}/missing.mp4")))
    with pytest.raises(UnsupportedContentError, match="may be fetched from 127.0.0.1, not from localhost"):
        model.model_copy(update={"allow_remote": ("127.0.0.1",)}).invoke(
            ask(create_video_block(url=f"{address}/moved.mp4"))
        )


@pytest.fixture
def files_by_http(socket_enabled: None) -> Iterator[Callable[[Path], str]]:
    """``files_by_http(folder)``: the address of a server of its files.

    ``moved.mp4`` is said to be on another host, ``never.mp4`` never comes, ``short.mp4`` breaks off.
    """
    servers = []
    closing = threading.Event()

    def serve(folder: Path) -> str:
        class Files(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def do_GET(self) -> None:
                if self.path == "/never.mp4":
                    closing.wait(60)
                    return
                if self.path == "/short.mp4":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b"0" * 10)
                    return
                if self.path != "/moved.mp4":
                    return super().do_GET()
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/colours.mp4")  # type: ignore[attr-defined]
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    closing.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_that_keeps_one_waiting(
    model: ChatVideoChat, files_by_http: Callable[[Path], str], color_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = files_by_http(color_video.parent)
    open_ = model.model_copy(update={"allow_remote": True})
    monkeypatch.setattr(remote_media, "STALL_SECONDS", 0.2)
    with pytest.raises(UnreadableMediaError, match=r"sent nothing for 0\.2 s"):
        open_.invoke(ask(create_video_block(url=f"{address}/never.mp4")))
    monkeypatch.undo()
    for limit, says in (("MAX_SECONDS", "was not there after 0 s"), ("MAX_BYTES", "is larger than 0 MB")):
        monkeypatch.setattr(remote_media, limit, 0)
        with pytest.raises((UnreadableMediaError, UnsupportedContentError), match=f"{says}; download it"):
            open_.invoke(ask(create_video_block(url=f"{address}/colours.mp4")))
        monkeypatch.undo()
    with pytest.raises(UnreadableMediaError, match="ended early"):
        open_.invoke(ask(create_video_block(url=f"{address}/short.mp4")))
