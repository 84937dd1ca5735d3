"""Tiny fast tokenizers, each of the kind and with the frame of a pair that a family of models has."""

import re
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

MAX_LENGTH = 64
_TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "What is the answer? 0123456789 It is a river.",
    "yes no maybe ABC xyz,.! Yes No",
    "yes",
    "no",
    "Yes",
    "No",
    "user assistant system model query document judge instruct",
] * 3
_SIZE = 420


def _words(*marks: str) -> list[str]:
    """Return the words of the texts and their characters, each after each of the marks of its kind."""
    words = dict.fromkeys(word for text in _TEXTS for word in re.findall(r"\w+|[^\w\s]", text))
    characters = dict.fromkeys("".join(words))
    return list(dict.fromkeys([*(mark + each for each in characters for mark in ("", *marks)), *words]))


def word_piece(special: list[str]) -> Tokenizer:
    """BERT's: lower case, words in pieces."""
    pieces = dict.fromkeys([*special, *(piece.lower() for piece in _words("##"))])
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    return tokenizer


def unigram(special: list[str], unknown: str = "<unk>") -> Tokenizer:
    """SentencePiece's unigram model: a space is a character, and each text begins with one."""
    pieces = dict.fromkeys(["▁", *_words(), *(f"▁{word}" for word in _words() if len(word) > 1)])
    vocabulary = [*((piece, 0.0) for piece in special), *((piece, -4.0 - len(piece) / 4) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, special.index(unknown), False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("``", '"')])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(special)
    return tokenizer


def byte_bpe(special: list[str]) -> Tokenizer:
    """GPT-2's byte pairs, with every byte in the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings: Any = {"initial_alphabet": alphabet, "show_progress": False}
    trainer = trainers.BpeTrainer(vocab_size=_SIZE, special_tokens=special, **settings)
    tokenizer.train_from_iterator(_TEXTS, trainer)
    return tokenizer


def sentencepiece_bpe(special: list[str], *, prefix: bool) -> Tokenizer:
    """SentencePiece's byte pairs: spaces are characters, unknown ones fall back to bytes (Mistral, Gemma).

    With `prefix` a text begins with a space, as Llama 2 and Mistral have it.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    spaces: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=_SIZE + 256, special_tokens=[*special, *bytes_], show_progress=False)
    # Split for the training only, so that no token spans several words.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(_TEXTS, trainer)
    tokenizer.pre_tokenizer = None
    return tokenizer


class Frame(NamedTuple):
    """Special tokens around one text and around a pair, in the notation of `TemplateProcessing`."""

    single: str
    pair: str


FRAMES = {
    "bert": Frame("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"),
    "modernbert": Frame("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0"),
    "roberta": Frame("<s>:0 $A:0 </s>:0", "<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0"),
    "t5": Frame("$A:0 </s>:0", "$A:0 </s>:0 $B:0 </s>:0"),
    "xlnet": Frame("$A:0 <sep>:0 <cls>:2", "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2"),
    "bos": Frame("<s>:0 $A:0", "<s>:0 $A:0 <s>:1 $B:1"),
    "gemma": Frame("<bos>:0 $A:0", "<bos>:0 $A:0 <bos>:1 $B:1"),
    "llama3": Frame("<|begin_of_text|>:0 $A:0", "<|begin_of_text|>:0 $A:0 <|begin_of_text|>:1 $B:1"),
}


def finished(tokenizer: Tokenizer, frame: str | None, *, types: bool = False, **names: Any) -> PreTrainedTokenizerFast:
    """Return transformers' tokenizer; `types`: whether the model takes segment ids; `names`: its special tokens."""
    if frame is not None:
        single, pair = FRAMES[frame]
        used = {part.split(":")[0] for part in pair.split() if not part.startswith("$")}
        special = [(token, tokenizer.token_to_id(token)) for token in sorted(used)]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    settings = {"model_max_length": MAX_LENGTH, **names}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **settings)


_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_FAIRSEQ = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_FAIRSEQ |= {"cls_token": "<s>", "sep_token": "</s>"}


def encoder_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of an encoder or an encoder-decoder."""
    bert, fairseq = list(_BERT.values()), ["<s>", "<pad>", "</s>", "<unk>"]
    match family:
        case "bert" | "electra" | "fnet" | "convbert":
            return finished(word_piece(bert), "bert", types=True, **_BERT)
        case "distilbert":
            return finished(word_piece(bert), "bert", **_BERT)
        case "mpnet":
            names = {**_FAIRSEQ, "unk_token": "[UNK]"}
            return finished(word_piece(["<s>", "<pad>", "</s>", "[UNK]"]), "roberta", **names)
        case "deberta":
            return finished(byte_bpe(bert), "bert", types=True, **_BERT)
        case "deberta-v2" | "albert":
            return finished(unigram(bert, "[UNK]"), "bert", types=True, **_BERT)
        case "modernbert":
            return finished(byte_bpe(bert), "modernbert", **_BERT)
        case "xlm-roberta":
            return finished(unigram(fairseq), "roberta", **_FAIRSEQ)
        case "xlnet":
            special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"]
            names = {**_FAIRSEQ, "cls_token": "<cls>", "sep_token": "<sep>"}
            return finished(unigram(special), "xlnet", types=True, padding_side="left", pad_token_type_id=3, **names)
        case "t5":
            names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
            return finished(unigram(["<pad>", "</s>", "<unk>"]), "t5", **names)
        case _:  # roberta, bart
            return finished(byte_bpe(fairseq), "roberta", **_FAIRSEQ)


_CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def decoder_tokenizer(family: str, **changes: Any) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a decoder, without a chat template; `changes`: its special tokens, padding side, ..."""
    match family:
        case "llama":
            special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
            names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|end_of_text|>"}
            return finished(byte_bpe(special), "llama3", **{**names, **changes})
        case "qwen":
            names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
            return finished(byte_bpe(_CHATML), None, **{**names, **changes})
        case "mistral":
            names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
            special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
            return finished(sentencepiece_bpe(special, prefix=True), "bos", **{**names, **changes})
        case "gemma":
            special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
            names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
            return finished(sentencepiece_bpe(special, prefix=False), "gemma", **{**names, **changes})
        case _:  # gpt2
            names = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
            return finished(byte_bpe(["<|endoftext|>"]), None, **{**names, **changes})
