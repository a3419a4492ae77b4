"""Which words belong to which line, and which words of a false caption are to blame."""

from __future__ import annotations

from random import Random

import pytest
import torch
from transformers import LlamaForCausalLM

from videochat_tools.context import clip_caption
from videochat_tools.training import lines as questions
from videochat_tools.training.batches import CAUSAL_MATMUL, ConversationBatch, encode_conversations
from videochat_tools.training.conversations import Conversation, Piece
from videochat_tools.training.drills import option_drill, transcript_drill
from videochat_tools.training.instruct import language_loss
from videochat_tools.training.lines import LineHeads
from videochat_tools.training.reading import Signs, read_lines
from videochat_tools.training.recipe import SIZES, chat_config
from videochat_tools.training.texts import draw_batch_texts
from videochat_tools.training.tokenizers import build_llm_tokenizer, build_qformer_tokenizer
from videochat_tools.training.world.language import contradict
from videochat_tools.training.world.scene import sample_scene
from videochat_tools.types import TimeSpan

_TEXT = (
    '###Human: [37:25–37:29] Henry: "the hammer (A) is"\n[1:02:07–1:02:09] Maria: "Anna: five coins"\n'
    '###Human: who says "the hammer (A) is"?\n###Assistant: Henry [37:25–37:29]'
    "###Human: what is said at 37:25?\n"
    "###Human: Question: which?\nOptions:\n(A) red\n(B) blue circle\n###Assistant: (B) blue circle###"
)


@pytest.fixture(scope="module")
def words():
    return build_llm_tokenizer()


def _asked(words, batch: ConversationBatch) -> dict[str, list[tuple[int, int, int]]]:
    return LineHeads(32, words, 4).ask(batch, [read_lines(ids, Signs(words)) for ids in batch.input_ids.tolist()])


def test_lines_quotations_and_times_are_found(words) -> None:
    ids = words(_TEXT, add_special_tokens=False)["input_ids"]

    def told(places: list[int]) -> str:
        return words.decode([ids[place] for place in places]).replace(" ", "")

    reading = read_lines(ids, Signs(words))
    lines = [(words.decode([line.mark]).strip(), told(line.words)) for line in reading.lines]
    assert lines[0] == ("Henry", "thehammer(Ais")  # without what stands beside words
    assert lines[1][0] == "Maria" and lines[1][1].startswith("Anna:fivecoins")  # a name in a quotation is no mark
    assert lines[2:] == [("A", "red"), ("B", "bluecircle"), ("B", "bluecircle")]
    assert [line.time and words.decode([line.time]) for line in reading.lines] == ["25", "07", None, None, None]
    assert [told(places) for places in reading.quotations] == ["thehammer(A)is"]
    assert told(reading.times) == "25" and len(reading.times) == 1


def test_answers_ask_for_the_frames_whose_times_they_tell(words) -> None:
    answer = Piece(" from 17:04.4 to 17:07.2 [17:03–17:08]", True)
    told = f"###Human: <Video></Video> {clip_caption(TimeSpan(1023.0, 1028.6), frames=8)}\n"
    asked = "###Human: when is it that the star moves from left to right?\n###Assistant:"
    row = Conversation((Piece(told + asked), answer, Piece("###")), ("when",), ((2, 6),))
    batch = encode_conversations(words, [row], 0)
    wanted = _asked(words, batch)
    shown = [[words.decode([token]) for _, _, token in wanted[name]] for name in ("frame", "wanted_frame")]
    assert shown[0] == [str(number) for number in range(9) for _ in range(3)]  # the ninth is the end
    assert shown[1] == ["2", "2", "2", "6", "6", "6"]
    ids = batch.input_ids[0].tolist()
    next_to_come = {words.decode([ids[place + 1]]).strip() for _, place, _ in wanted["wanted_frame"]}
    assert next_to_come == {"17", "04", "4", "07", "2"}
    for name, frame in (("wanted_begin", "2"), ("wanted_end", "6")):  # both before the answer begins
        ((_, place, token),) = wanted[name]
        assert (words.decode([token]), words.decode(ids[place - 1 : place + 1])) == (frame, "Assistant:")


def test_answers_ask_for_the_line_that_they_quote_and_cite(words) -> None:
    told = '###Human: [04:18–04:22] Iris: "the beach opens"\n[04:34–04:36] David: "twelve castle"\n'
    quoted = Piece(' "twelve castle" [04:34–04:36]', True)
    named = Piece(" Iris [04:18–04:22]", True)
    row = Conversation(
        (
            Piece(told + '###Human: what is said after "the beach opens"?\n###Assistant:'),
            quoted,
            Piece('###Human: who says "the beach opens"?\n###Assistant:'),
            named,
            Piece("###"),
        ),
        ("t_after", "t_who"),
    )
    batch = encode_conversations(words, [row], 0)
    wanted = _asked(words, batch)
    tokens = words.convert_ids_to_tokens(batch.input_ids[0].tolist())

    def shown(name: str) -> list[tuple[str, str]]:
        return [(tokens[place], words.decode([token]).strip()) for _, place, token in wanted[name]]

    assert shown("wanted_words") == [(":", "twelve"), ("▁", "twelve"), ('"', "twelve")]
    assert shown("wanted_time") == [("▁", "34"), ("[", "34"), ("▁", "18"), ("[", "18")]
    speakers = [speaker for _, speaker in shown("wanted_speaker")]  # at every word up to the times
    assert speakers == ["David"] * 8 + ["Iris"] * 4
    assert shown("wanted_speaker")[3:6] == [("twelve", "David"), ("▁castle", "David"), ('"', "David")]


def test_answers_that_quote_look_at_the_first_word_of_their_line(words) -> None:
    told = '###Human: [04:18–04:22] Iris: "seven boxes"\n[04:34–04:36] David: "twelve"\n'
    answers = (' "twelve" [04:34–04:36]', " David [04:34–04:36]", ' "seven boxes" [04:18–04:22]')
    pieces = [Piece(told)]
    for answer in answers:
        pieces += [Piece("###Human: what is said?\n###Assistant:"), Piece(answer, True)]
    batch = encode_conversations(words, [Conversation((*pieces, Piece("###")), ("t_last", "t_who", "t_first"))], 0)
    heads, ids = LineHeads(32, words, 4), batch.input_ids[0].tolist()
    meant = heads.meant(batch, [read_lines(ids, heads.signs)])
    looks = [(words.decode([ids[copy.place + 1]]).strip(), words.decode([ids[copy.sources[0]]])) for _, copy in meant]
    assert [(word, source.strip()) for word, source in looks] == [
        *((word, "twelve") for word in ("", '"', "twelve")),
        *((word, "seven") for word in ("", '"', "seven")),  # an answer that names the speaker quotes nothing
    ]


def test_lines_are_told_by_their_speakers_who_no_two_share(words) -> None:
    told = "".join(
        f'[04:{second}–04:{second + 3}] {name}: "{line}"\n'
        for second, name, line in ((18, "Iris", "the beach opens"), (34, "David", "the castle"), (50, "Leo", "twelve"))
    )
    asked = '###Human: what is said before "the castle"?\n###Human: what is said at 04:34?\n###Assistant:'
    row = Conversation((Piece(f"###Human: {told}{asked}"), Piece(" yes", True), Piece("###")), ("t_before",))
    wanted = _asked(words, encode_conversations(words, [row], 0))

    def shown(name: str) -> set[str]:
        return {words.decode([token]).strip() for _, _, token in wanted[name]}

    assert shown("mark") == {"Iris", "David", "Leo"} and shown("earlier") == {"Iris", "David"}
    assert (shown("told_mark"), shown("told_earlier"), shown("told_later")) == ({"David"}, {"Iris"}, {"Leo"})
    assert shown("told_speaker") == {"David"}


def test_an_option_is_asked_for_by_a_word_that_no_other_has(words) -> None:
    options = "(A) the red circle\n(B) the red star\n(C) the blue star\n"
    again = "(A) the blue circle\n(B) the red circle\n"
    pieces = []
    for listed, answer in (
        (options, "(B) the red star"),
        (options, "(C) the blue star"),
        (again, "(B) the red circle"),
    ):
        pieces += [Piece(f"###Human: Question: what moves?\nOptions:\n{listed}###Assistant: Best option:")]
        pieces += [Piece(answer, True)]
    row = Conversation((*pieces, Piece("###")), ("choice",) * 3)
    wanted = _asked(words, encode_conversations(words, [row], 0))["wanted"]
    # No word is the second's alone: its first one stands for it.
    assert [words.decode([token]).strip() for _, _, token in wanted] == ["the", "blue", "red"]


def test_a_few_steps_teach_what_a_line_is_marked_by(words) -> None:
    torch.manual_seed(0)
    config = chat_config(1, len(words), SIZES["half"]).text_config
    config._attn_implementation = CAUSAL_MATMUL
    model = LlamaForCausalLM(config)
    heads = LineHeads(config.hidden_size, words, config.num_hidden_layers)
    rows = [drill(Random(seed)) for seed in range(3) for drill in (option_drill, transcript_drill)]
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=3e-3)
    seen = []
    for _ in range(60):
        loss, right = language_loss(model, words, rows, heads)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(right)
    assert {"l_mark", "l_wanted", "l_earlier", "l_told_later", "l_wanted_speaker", "l_look_3", "l_led_3"} <= {*seen[0]}
    assert seen[0]["l_mark"] < 0.2 < 0.5 < seen[-1]["l_mark"]
    for looked in ("l_look_3", "l_led_3"):
        assert seen[0][looked] < 0.05 < 0.2 < seen[-1][looked]


def test_heads_that_do_not_teach_leave_the_language_model_alone(words, monkeypatch) -> None:
    monkeypatch.setattr(questions, "_LOOK_WEIGHT", 0.0)  # where to look is taught at all times
    config = chat_config(1, len(words), SIZES["half"]).text_config
    config._attn_implementation = CAUSAL_MATMUL
    model = LlamaForCausalLM(config)
    asked = Piece("###Human: Options:\n(A) red\n(B) blue\n###Assistant:")
    row = Conversation((asked, Piece(" yes", True), Piece("###")), ("what",))  # nothing is copied

    def gradients(heads: LineHeads | None) -> list[torch.Tensor | None]:
        model.zero_grad()
        language_loss(model, words, [row], heads)[0].backward()
        return [parameter.grad for parameter in model.parameters()]

    alone, heads = gradients(None), LineHeads(config.hidden_size, words, config.num_hidden_layers)
    torch.nn.init.eye_(heads.heads["mark"].weight)  # they start with no idea, and what knows nothing teaches nothing
    for teaches in (False, True):
        heads.teaches = teaches
        same = all(torch.equal(a, b) for a, b in zip(alone, gradients(heads), strict=True) if a is not None)
        assert same is not teaches
        assert float(heads.heads["mark"].weight.grad.abs().sum()) > 0.0


def test_rows_without_lines_ask_for_nothing_but_idle_heads(words) -> None:
    config = chat_config(1, len(words), SIZES["half"]).text_config
    heads = LineHeads(config.hidden_size, words, config.num_hidden_layers)
    row = Conversation(
        (Piece("###Human: what is it?\n###Assistant:"), Piece(" a circle", True), Piece("###")), ("what",)
    )
    batch = encode_conversations(words, [row], 0)
    states = [torch.zeros(*batch.input_ids.shape, config.hidden_size)] * (config.num_hidden_layers + 1)
    length = batch.input_ids.shape[1]
    for place, idle in ((0, 1.0), (1, 0.0)):
        attentions = torch.zeros(config.num_hidden_layers, 1, config.num_attention_heads, length, length)
        attentions[..., place] = 1.0
        loss, right = heads(LlamaForCausalLM(config), states, [*attentions], batch)
        assert (float(loss) == 0.0) is bool(idle)
        assert {*right} == {"l_idle_3"} and {*right["l_idle_3"]} == {idle}


def test_copied_words_are_asked_for_themselves_and_other_places_are_idle(words) -> None:
    told = '###Human: [04:18–04:22] Iris: "seven boxes"\n###Human: what is said first?\n###Assistant:'
    row = Conversation((Piece(told), Piece(' "seven boxes" [04:18–04:22]', True), Piece("###")), ("t_first",))
    batch = encode_conversations(words, [row], 0)
    heads, ids = LineHeads(32, words, 4), batch.input_ids[0].tolist()
    copied = [one for one in heads.copied(batch, [read_lines(ids, heads.signs)]) if not one[1].led]
    own = [(place, token) for _, place, token in questions._sources(batch, copied)]
    assert [words.decode([token]).strip() for _, token in own] == ["seven", "boxes"]
    assert all(ids[place] == token and place < int(batch.places[0, 1]) for place, token in own)
    idle = [copy for _, copy in questions._elsewhere(batch, copied)]
    assert {copy.sources for copy in idle} == {(0,)}
    assert len(idle) == len(batch.places) - len(copied) and len(copied) == 2


def test_the_false_words_of_a_caption_are_known() -> None:
    rng, told = Random(3), 0
    for _ in range(300):
        scene = sample_scene(rng)
        text = contradict(rng, scene, rng.choice(("size", "texture", "colour")))
        if text is None or not text.faults:
            continue
        told += 1
        false = {text.text.split()[place] for place in text.faults}
        looks = {value for thing in scene.things for value in thing.look}
        assert len(false) <= 3
        if len(scene.things) == 1:  # what is false of the only object is none of its values
            assert not false & looks, (text.text, false)
    assert told > 150


def test_pieces_of_false_words_are_marked() -> None:
    pieces = build_qformer_tokenizer()
    scenes = [sample_scene(Random(seed)) for seed in range(12)]
    texts = draw_batch_texts(Random(0), pieces, scenes, 4)
    owners = {number: clip for clip, numbers in enumerate(texts.own_wrong) for number in numbers}
    assert float(texts.faults[: min(owners)].abs().sum()) == 0.0  # true ones have none
    assert {*texts.faults.unique().tolist()} == {-1.0, 0.0, 1.0}
    marked = 0
    for number, text in enumerate(texts.texts):
        places = (texts.faults[number] > 0).nonzero().flatten().tolist()
        if places:
            assert not texts.matches[number, owners[number]]
            marked += 1
            blamed = pieces.decode(texts.ids[number][places]).replace(" ", "").replace(",", "")
            words = "".join(text.text.split()[place] for place in text.faults or ()).replace(",", "")
            assert blamed == words.lower()
    assert marked > 20


def test_an_attention_without_weights_is_an_error(words) -> None:
    config = chat_config(1, len(words), SIZES["half"]).text_config
    heads = LineHeads(config.hidden_size, words, config.num_hidden_layers)
    with pytest.raises(ValueError, match=f"call set_attn_implementation.'{CAUSAL_MATMUL}'. first"):
        language_loss(LlamaForCausalLM(config), words, [option_drill(Random(0))], heads)
