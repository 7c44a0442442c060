"""What the makers share: tokenizers trained in place, a training loop, the shape of a case. Runs in the model runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

torch.set_num_threads(1)  # tiny models: a second thread only waits
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

Reference = dict[str, Any]
TINY_BERT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.15,  # learns pairs of sentences in a hundred steps, where BERT's 0.02 needs thousands
}


def case(inputs: Mapping[str, object], answer: object, **parameters: object) -> Reference:
    """One question with the reference's answer."""
    return {"inputs": dict(inputs), "parameters": parameters, "answer": answer}


def wordpiece(texts: Iterable[str], *, size: int = 400, lower: bool = True, length: int = 128) -> PreTrainedTokenizerFast:
    """BERT's tokenizer with a vocabulary of its own."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(list(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, special.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def fit(model: PreTrainedModel, batch: Callable[[], dict[str, torch.Tensor]], *, steps: int, rate: float = 3e-3) -> float:
    """Train for some steps; the last loss."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    loss = torch.zeros(())
    for _ in range(steps):
        loss = model(**batch()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return float(loss.detach())


def save(folder: Path, model: PreTrainedModel, *others: Any) -> None:
    """A folder as ``save_pretrained`` writes it."""
    for one in (model.eval(), *others):
        one.save_pretrained(folder)


def rounded(value: Any) -> Any:
    """numpy and torch scalars as plain Python, for JSON."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value.item() if hasattr(value, "item") else value
