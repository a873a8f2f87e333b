import json

import pytest
import torch
from peft import PeftModel
from tiny_models import tiny_qwen2, tiny_t5
from training_examples import small_multitask
from transformers import AutoModelForCausalLM, GenerationConfig, T5ForConditionalGeneration

from trialign.backbone import hub_backbone, hub_tokenizer, load_backbone, make_backbone, save_backbone
from trialign.scratch import scratch_gpt2, scratch_qwen3, scratch_t5, scratch_tokenizer
from trialign.tasks import TASKS
from trialign.vocabulary import SidVocabulary

SIZES = (6, 4, 2)
IDS = torch.tensor([[20, 41, 63, 300]])


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return tiny_qwen2(tmp_path_factory.mktemp("qwen2"))


def vocabulary_of(folder):
    return SidVocabulary.add_to(hub_tokenizer(folder), SIZES)


@pytest.mark.parametrize("text", ["red mug", "<|end|> <a_1>", "naïve 🎁\n\ttabs", "日本語 ​zero width", ""])
def test_scratch_tokenizer_round_trips_any_text(text):
    tokenizer = scratch_tokenizer(["red mug", "blue mug"], 400)
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_scratch_tokenizer_learns_the_words_of_catalogue_and_templates():
    tokenizer = scratch_tokenizer(["ceramic mug", "ceramic bowl"] * 5, 600)
    assert len(tokenizer) <= 600
    assert len(tokenizer("ceramic mug")["input_ids"]) == 2
    longest = max(len(tokenizer(" ".join(task.parts))["input_ids"]) for task in TASKS.values())
    assert longest <= 10
    with pytest.raises(ValueError, match="at least one text"):
        scratch_tokenizer([""], 400)
    with pytest.raises(ValueError, match="258"):
        scratch_tokenizer(["mug"], 100)


def test_dropout_works_in_training_alone_and_at_every_place():
    vocabulary = small_multitask().vocabulary
    shape = {"hidden": 32, "layers": 2, "heads": 2, "attention_dropout": 0.0}
    dropped, plain = scratch_qwen3(vocabulary, dropout=0.5, **shape), scratch_qwen3(vocabulary, **shape)
    assert torch.equal(dropped(IDS).logits, plain(IDS).logits)  # the same weights, and no dropout outside training
    dropped.train()
    layer = dropped.model.layers[1]
    hidden = torch.ones(1, 4, 32)
    for part in (dropped.model.embed_tokens(IDS), layer.mlp(hidden)):
        assert 0.2 < (part == 0).float().mean() < 0.8
    assert not torch.equal(dropped(IDS).logits, dropped(IDS).logits)
    assert torch.equal(plain.train()(IDS).logits, plain(IDS).logits)


def test_scratch_backbone():
    vocabulary = small_multitask().vocabulary
    model = scratch_qwen3(vocabulary, hidden=32, layers=2, heads=2, seed=4)
    again = scratch_qwen3(vocabulary, hidden=32, layers=2, heads=2, seed=4)
    other = scratch_qwen3(vocabulary, hidden=32, layers=2, heads=2, seed=5)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config._attn_implementation == "eager" and not model.training
    assert model.get_input_embeddings().num_embeddings == len(vocabulary)
    logits = [m(torch.tensor([[1, 2, 3]])).logits for m in (model, again, other)]
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2])
    assert model.generation_config.eos_token_id == vocabulary.eos_token_id
    with pytest.raises(ValueError, match="even multiple"):
        scratch_qwen3(vocabulary, hidden=30, heads=4)


def test_scratch_gpt2():
    vocabulary = small_multitask().vocabulary
    shape = {"hidden": 64, "layers": 3, "heads": 2}
    model, again, other = (scratch_gpt2(vocabulary, **shape, seed=seed) for seed in (4, 4, 5))
    config = model.config
    assert (config.n_embd, config.n_layer, config.n_head, config.n_positions) == (64, 3, 2, 1024)
    assert type(model.transformer.h[0].mlp.act) is torch.nn.ReLU
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config._attn_implementation == "eager" and not model.training
    logits = [m(IDS % len(vocabulary)).logits for m in (model, again, other)]
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2])
    assert model.generation_config.eos_token_id == vocabulary.eos_token_id
    dropped = scratch_gpt2(vocabulary, **shape, dropout=0.5, attention_dropout=0.0, seed=4)
    assert torch.equal(dropped(IDS % len(vocabulary)).logits, logits[0])
    part = dropped.train().transformer.h[1].mlp(torch.ones(1, 4, 64))
    assert 0.2 < (part == 0).float().mean() < 0.8
    with pytest.raises(ValueError, match="multiple of heads"):
        scratch_gpt2(vocabulary, hidden=30, heads=4)


@pytest.mark.parametrize("make", [scratch_qwen3, scratch_gpt2, scratch_t5])
@pytest.mark.parametrize("hidden", [32, 256])
def test_scores_of_a_new_model_have_a_deviation_near_one(make, hidden):
    vocabulary = small_multitask().vocabulary
    model = make(vocabulary, hidden=hidden, layers=6, heads=2)
    ids = torch.randint(len(vocabulary), (4, 50), generator=torch.Generator().manual_seed(0))
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    assert 0.5 < model(ids, **inputs).logits.std() < 2
    # ... with embeddings that an optimizer's steps, as large for all weights, can still move.
    assert float(model.get_input_embeddings().weight.detach().std()) == pytest.approx(hidden**-0.5, rel=0.1)


def test_making_a_backbone_leaves_the_random_state_alone():
    vocabulary = small_multitask().vocabulary
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    scratch_qwen3(vocabulary, hidden=32, layers=1, heads=2, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_hub_backbone_gets_sensible_sid_rows(qwen2):
    base = AutoModelForCausalLM.from_pretrained(qwen2)
    vocabulary = vocabulary_of(qwen2)
    model = hub_backbone(qwen2, vocabulary)
    old, new = base.get_input_embeddings().weight, model.get_input_embeddings().weight
    texts = int(vocabulary.all_sid_token_ids.min())
    assert len(new) == len(vocabulary) and model.config.vocab_size == len(vocabulary)
    assert torch.equal(new[:texts], old[:texts])
    rows = new[torch.as_tensor(vocabulary.all_sid_token_ids)]
    distance = (rows - old[:texts].mean(dim=0)).norm(dim=1)
    assert (distance < 0.2 * old[:texts].std(dim=0).norm()).all() and (distance > 0).all()
    assert len(torch.unique(rows, dim=0)) == len(rows)
    assert torch.equal(model(IDS).logits[..., :texts], base(IDS).logits[..., :texts])


def test_generation_settings_of_a_chat_model_are_reset(tmp_path):
    folder = tiny_qwen2(tmp_path)
    chat = GenerationConfig(do_sample=True, temperature=0.7, repetition_penalty=1.3, eos_token_id=2)
    chat.save_pretrained(folder)
    settings = hub_backbone(folder, vocabulary_of(folder)).generation_config
    assert not settings.do_sample and settings.repetition_penalty in (None, 1.0)


def test_lora_trains_adapters_and_sid_rows_only(qwen2):
    vocabulary = vocabulary_of(qwen2)
    model = hub_backbone(qwen2, vocabulary, lora_rank=2)
    assert isinstance(model, PeftModel)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and all("lora_" in name or "trainable_tokens" in name for name in names)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    sid = int(vocabulary.sid_token_ids[0][1])
    ids = torch.tensor([[20, 41, sid, 300]])
    before = model.get_base_model().get_input_embeddings()(ids).detach().clone()
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    after = model.get_base_model().get_input_embeddings()(ids).detach()
    assert torch.equal(before[0, [0, 1, 3]], after[0, [0, 1, 3]])
    assert not torch.equal(before[0, 2], after[0, 2])
    with pytest.raises(ValueError, match="lora_rank"):
        hub_backbone(qwen2, vocabulary, lora_rank=0)


def test_scratch_t5_has_the_shape_of_tiger():
    vocabulary = small_multitask().vocabulary
    model = scratch_t5(vocabulary)
    config = model.config
    assert (config.d_model, config.d_ff, config.num_heads, config.d_kv) == (128, 1024, 6, 64)
    assert (len(model.encoder.block), len(model.decoder.block), config.dropout_rate) == (4, 4, 0.1)
    assert type(model.encoder.block[0].layer[1].DenseReluDense.act) is torch.nn.ReLU
    assert model.lm_head.weight is model.shared.weight and len(model.shared.weight) == len(vocabulary)
    assert config.decoder_start_token_id == vocabulary.pad_token_id and not model.training
    small = {"hidden": 32, "layers": 1, "heads": 2, "head_size": 8, "feed_forward": 48}
    weights = [scratch_t5(vocabulary, **small, seed=seed).shared.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_make_backbone_by_name():
    causal, _ = make_backbone("scratch", SIZES, ["red mug"], hidden=32, layers=1)
    t5, vocabulary = make_backbone("scratch-t5", SIZES, ["red mug"], hidden=32, layers=1)
    gpt2, _ = make_backbone("scratch-gpt2", SIZES, ["red mug"], hidden=32, layers=1)
    assert gpt2.config.model_type == "gpt2" and gpt2.config.n_embd == 32
    assert isinstance(t5, T5ForConditionalGeneration) and not causal.config.is_encoder_decoder
    assert (t5.config.d_model, t5.config.num_layers, vocabulary.codebook_sizes) == (32, 1, SIZES)


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_hub_t5_holds_the_sid_rows_everywhere_and_round_trips(tmp_path, lora_rank):
    folder = tiny_t5(tmp_path / "t5")
    base = T5ForConditionalGeneration.from_pretrained(folder)
    vocabulary = vocabulary_of(folder)
    model = hub_backbone(folder, vocabulary, lora_rank=lora_rank)
    texts = int(vocabulary.all_sid_token_ids.min())
    answer = torch.tensor([[7, 30]])
    logits = model(input_ids=IDS, decoder_input_ids=answer).logits
    assert logits.shape[-1] == len(vocabulary)
    torch.testing.assert_close(logits[..., :texts], base(input_ids=IDS, decoder_input_ids=answer).logits[..., :texts])
    # A step on SID tokens reaches encoder, decoder and output layer alike, and survives the disk.
    sids = torch.as_tensor(vocabulary.all_sid_token_ids)[None]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(input_ids=sids, labels=sids).loss.backward()
    optimizer.step()
    core = model.get_base_model() if lora_rank else model
    inputs = [layer(sids) for layer in (core.shared, core.encoder.embed_tokens, core.decoder.embed_tokens)]
    assert torch.equal(inputs[0], inputs[1]) and torch.equal(inputs[0], inputs[2])
    output = core.lm_head(torch.eye(64)).T[sids]
    torch.testing.assert_close(output, inputs[0])
    loaded, _ = load_backbone(save_backbone(model, vocabulary, tmp_path / "saved"))
    after = model(input_ids=IDS, decoder_input_ids=sids).logits
    assert not torch.allclose(after[0, -1], logits[0, -1])
    torch.testing.assert_close(loaded(input_ids=IDS, decoder_input_ids=sids).logits, after)


@pytest.mark.parametrize("make", [scratch_qwen3, scratch_gpt2])
def test_save_and_load_scratch(make, tmp_path):
    vocabulary = small_multitask().vocabulary
    model = make(vocabulary, hidden=32, layers=1, heads=2)
    loaded, same = load_backbone(save_backbone(model, vocabulary, tmp_path / "model"))
    assert torch.equal(model(IDS % len(vocabulary)).logits, loaded(IDS % len(vocabulary)).logits)
    assert loaded.config._attn_implementation == "eager"
    assert same.encode_text("Red mug") == vocabulary.encode_text("Red mug")
    assert not [file for file in (tmp_path / "model").iterdir() if file.suffix in (".bin", ".pt", ".pkl")]


def test_save_and_load_lora_without_the_embedding(qwen2, tmp_path):
    vocabulary = vocabulary_of(qwen2)
    model = hub_backbone(qwen2, vocabulary, lora_rank=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    ids = torch.tensor([[20, int(vocabulary.sid_token_ids[1][2]), 41]])
    folder = save_backbone(model.eval(), vocabulary, tmp_path / "lora")
    loaded, _ = load_backbone(folder)
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)
    full = model.get_base_model().get_input_embeddings().weight.numel() * 4
    assert (folder / "adapter_model.safetensors").stat().st_size < full
    assert json.loads((folder / "backbone.json").read_text())["base"] == str(qwen2)


def test_bad_input(qwen2, tmp_path):
    with pytest.raises(FileNotFoundError, match="notebook 05"):
        load_backbone(tmp_path)
    foreign = SidVocabulary.add_to(scratch_tokenizer([f"word{n} other{n}" for n in range(900)], 1200), SIZES)
    with pytest.raises(ValueError, match="model's own tokenizer"):
        hub_backbone(qwen2, foreign)
