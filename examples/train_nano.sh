#!/bin/sh
# Make the nano from nothing: about three hours on two cores. Every stage takes up its run where it was stopped.
#   sh examples/train_nano.sh [FOLDER] [SCALE] [BANK]
# SCALE multiplies all times, BANK is how many clips are kept as the tower sees them: 0.01 and 200 make a rehearsal.
# The stages of sight and of language need nothing of each other, so they run side by side.
set -eu
folder=${1:-runs/nano}
scale=${2:-1}
bank=${3:-12000}
python=${PYTHON:-python}
minutes() { "$python" -c "print($1 * $scale)"; }

"$python" -m videochat_tools.training.align --folder "$folder/align" --minutes "$(minutes 90)" --rate 0.4 &
sight=$!
"$python" -m videochat_tools.training.instruct language --folder "$folder/language" --minutes "$(minutes 62)" \
    --rate 0.3 --hold 0.6
wait "$sight"
# The chat model starts from the tower as it is now; the retrieval heads go on beside it, with the tower frozen.
"$python" -m videochat_tools.training.align --heads --start "$folder/align/state.pt" --folder "$folder/heads" \
    --minutes "$(minutes 34)" --batch 64 --bank "$bank" --rate 0.45 &
heads=$!
"$python" -m videochat_tools.training.instruct instruct --folder "$folder/chat" --align "$folder/align/state.pt" \
    --language "$folder/language/state.pt" --minutes "$(minutes 70)" --bank "$bank" --rate 0.35 --hold 0.5
wait "$heads"
"$python" -m videochat_tools.training.bundle --align "$folder/heads/state.pt" --chat "$folder/chat/state.pt" \
    --max-clips 1 --folder "$folder/nano"
"$python" -m videochat_tools.evaluation.calibrate --retrieval "$folder/nano/retrieval"
"$python" -m videochat_tools.evaluation.nano --retrieval "$folder/nano/retrieval" --chat "$folder/nano/chat"
