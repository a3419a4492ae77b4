"""Ready-made flows over a library, as LangChain Runnables."""

if __name__ == "agents":
    raise ImportError("this folder is no package of its own; import videochat_tools.agents")

from videochat_tools.agents.grounded_qa import create_grounded_qa

__all__ = ["create_grounded_qa"]
