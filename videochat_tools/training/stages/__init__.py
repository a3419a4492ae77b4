"""The released training stages as a pipeline: each goes on from the folder that the one before it has written.

::

    from videochat_tools.training.stages.estimate import estimate       # these two import torch
    from videochat_tools.training.stages.trainer import train_stage

    options = load_options("videochat2-vicuna-stage3", "mine.toml", batch_size=2)
    print(estimate(options))                       # what is trained and what memory it takes; loads no weights
    result = train_stage(options, "runs/stage3")   # the same call goes on after a stop
    ChatVideoChat(model=result.model)

docs/training.md describes the stages and their options.
"""

from .configs import RELEASED_STAGES, load_options, show_options
from .options import StageOptions, option_help, parse_options

__all__ = ["RELEASED_STAGES", "StageOptions", "load_options", "option_help", "parse_options", "show_options"]
