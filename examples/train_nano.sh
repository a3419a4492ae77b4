#!/bin/sh
# Make a nano from nothing: 150 minutes of training on two cores, then its evaluation; a SCALE of 0.9 took 156 in all, that of 1
# was not run. Every stage takes up its run where it was stopped. The bundled one had more time, its language above all:
# models/nano/MODEL_CARD.md compares the two.
#   sh examples/train_nano.sh [FOLDER] [SCALE] [SIZE] [SEED]
# SCALE multiplies all times: 0.01 makes a rehearsal, in which less is measured, too (all of it from 0.1 on).
# SIZE is half, nano or double, see training/recipe.py.
# On a GPU: DEVICE=cuda, and a SCALE of 0.16 for 25 minutes; that was not tried yet.
# The stages of sight and of language need nothing of each other, so they run side by side; the last has both cores.
set -eu
folder=${1:-runs/nano}
scale=${2:-1}
size=${3:-nano}
seed=${4:-0}
python=${PYTHON:-python}
set -- --size "$size" --seed "$seed" --device "${DEVICE:-cpu}"
clips=$("$python" -c "print(max(int(12000 * min($scale, 1)), 64))")  # that each process of the last stage watches, once
asked=$("$python" -c "print(min(int(20000 * $scale) + 1, 2000))")  # questions of a kind, in the evaluation
films=$("$python" -c "print(min(int(100 * $scale) + 2, 12))")  # that are calibrated on
processes=$([ "${DEVICE:-cpu}" = cpu ] && echo 2 || echo 1)
minutes() { "$python" -c "print($1 * $scale)"; }

"$python" -m videochat_tools.training.align --folder "$folder/align" --minutes "$(minutes 56)" --rate 0.4 "$@" &
sight=$!
"$python" -m videochat_tools.training.instruct language --folder "$folder/language" --minutes "$(minutes 56)" \
    --rate 0.2 --hold 0.6 "$@"
wait "$sight"
"$python" -m torch.distributed.run --standalone --nproc_per_node "$processes" -m videochat_tools.training.instruct \
    instruct --folder "$folder/chat" --align "$folder/align/state.pt" --language "$folder/language/state.pt" \
    --minutes "$(minutes 94)" --rate 0.15 --hold 0.3 --bank "$clips" --rows 8 --text-rows 8 "$@"
"$python" -m videochat_tools.training.bundle --align "$folder/align/state.pt" --chat "$folder/chat/state.pt" \
    --max-clips 1 --folder "$folder/nano" --size "$size"
"$python" -m videochat_tools.evaluation.calibrate --retrieval "$folder/nano/retrieval" --videos "$films"
"$python" -m videochat_tools.evaluation.nano --retrieval "$folder/nano/retrieval" --chat "$folder/nano/chat" \
    --clips "$asked" --probes "$asked" --questions "$asked"
