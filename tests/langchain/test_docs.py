"""The page about LangChain does what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from videochat_tools.embeddings import VideoEncoder
from videochat_tools.retrievers import HybridRetriever, RetrievalOptions
from videochat_tools.retrievers.metadata_filter import MetadataTable


def test_its_python_runs_from_top_to_bottom(
    encoder: VideoEncoder,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (repository / "docs" / "langchain.md").read_text(encoding="utf-8")
    examples: dict[str, Any] = runpy.run_path(str(repository / "examples" / "sample_library.py"))
    examples["open_sample_library"](tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        exec(block, names)
    chat, printed = (lines := capsys.readouterr().out.splitlines())[:3], lines[3:]
    prompt, video = (int(re.findall(f"'{count}': (\\d+)", chat[0])[0]) for count in ("input_tokens", "video"))
    assert 0 < video < prompt and int(chat[1]) < prompt
    assert re.fullmatch(r"objects=\d", chat[2])
    assert printed[0] == "12.0 18.0"
    assert printed[1].startswith("[film.mp4 00:11–00:18]") and printed[1].endswith("[6.0, 12.0]")
    assert printed[2:4] == ["nina lost the old umbrella", "0.0"]
    assert printed[4] == str(
        ["list_videos", "search_video", "ask_video", "watch_clip", "read_transcript", "get_frames"]
    )
    assert printed[5] == "red [00:06–00:12]"
    assert printed[6] == "yellow [00:12–00:18]"
    assert printed[7].endswith("[00:06–00:12]")
    settings = re.findall(r"`(\w+)`", page.partition("| Setting, of")[2].partition("\n\n")[0])
    known = {*HybridRetriever.model_fields, "invoke", RetrievalOptions.__name__}
    assert set(settings) <= known
    for operator in re.findall(r"\$\w+", page):
        if operator not in ("$and", "$or", "$not", "$overlaps", "$in", "$nin"):
            assert MetadataTable([{"n": 1}]).mask({"n": {operator: 1}}).shape == (1,)
