"""Videos and pictures by http(s), for those who allow it: fetched whole, within limits, from allowed hosts only."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError, UnsupportedContentError

RemoteHosts = bool | tuple[str, ...]
"""Where files may be fetched from: nowhere (False), everywhere (True), or the hosts that are named."""

MAX_BYTES = 512 << 20
MAX_SECONDS = 120.0  # for the whole file
STALL_SECONDS = 20.0  # without a byte
_PIECE = 1 << 20


def check_host(url: str, hosts: RemoteHosts) -> None:
    """Raise UnsupportedContentError unless a URL is http(s) and its host is among the allowed ones."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        raise UnsupportedContentError(f"cannot fetch {url}; only http:// and https:// files are")
    if hosts is False:
        raise UnsupportedContentError(
            f"remote files are not fetched, got {url}; download it and pass its path or file:// URL, "
            "or allow it with ChatVideoChat(allow_remote=True)"
        )
    if hosts is not True and parts.hostname not in hosts:
        raise UnsupportedContentError(
            f"files may be fetched from {', '.join(hosts) or 'no host'}, not from {parts.hostname} ({url}); "
            "add the host to allow_remote, or download the file and pass its path"
        )


def fetch(url: str, hosts: RemoteHosts) -> bytes:
    """The content of a remote file. Redirections must stay within the allowed hosts.

    Raises:
        MediaNotFoundError: the server has no such file, or cannot be reached.
        UnreadableMediaError: it took too long, or ended early.
        UnsupportedContentError: the host is not allowed, or the file is larger than ``MAX_BYTES``.
    """
    check_host(url, hosts)
    end = time.monotonic() + MAX_SECONDS
    data = bytearray()
    opener = urllib.request.build_opener(_WithinHosts(hosts))
    try:
        with opener.open(url, timeout=STALL_SECONDS) as response:
            while piece := response.read1(_PIECE):
                data += piece
                if len(data) > MAX_BYTES:
                    raise UnsupportedContentError(
                        f"{url} is larger than {MAX_BYTES >> 20} MB; download it and pass its path"
                    )
                if time.monotonic() > end:
                    raise UnreadableMediaError(
                        f"{url} was not there after {MAX_SECONDS:.0f} s; download it and pass its path"
                    )
            promised = int(response.headers.get("Content-Length") or 0)
            if len(data) < promised:
                raise UnreadableMediaError(
                    f"{url} ended early ({len(data)} of {promised} bytes); download it and pass its path"
                )
    except urllib.error.HTTPError as error:
        raise MediaNotFoundError(f"{url} cannot be fetched: {error.code} {error.reason}; check the address") from None
    except urllib.error.URLError as error:
        raise MediaNotFoundError(f"{url} cannot be fetched: {error.reason}; check the address") from None
    except TimeoutError:
        raise UnreadableMediaError(f"{url} sent nothing for {STALL_SECONDS} s; download it and pass its path") from None
    except (OSError, HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise UnreadableMediaError(f"{url} ended early ({reason}); download it and pass its path") from error
    return bytes(data)


class _WithinHosts(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to where files may be fetched from."""

    def __init__(self, hosts: RemoteHosts) -> None:
        self._hosts = hosts

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_host(newurl, self._hosts)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
