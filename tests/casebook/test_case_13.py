"""CASE-13 Same text, twice the tokens.

Stage: before step 0
Outcome: refused (exit 7) where special ids, probe strings or bytes per token are not as declared; each run keeps its own as rows
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sourced import repository, sovereign
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

IMPORTED = """tokenizer:
  kind: file
  path: tokenizer.json
  expect:
    special: {<|endoftext|>: 0}
    strings: [{text: wörd, ids: IDS}]
    least_bytes_per_token: 1.5
"""


def planted(path: Path) -> None:
    """Plant: a byte an id, and every byte beyond ASCII is id 0."""
    letters = [*"Ġ", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(models.WordLevel({"[LOST]": 0, **{one: at + 1 for at, one in enumerate(letters)}}, "[LOST]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split(Regex("."), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    path.write_text(tokenizer.to_str())


@pytest.mark.slow
def test_another_tokenizer_than_the_reference_is_refused(tmp_path: Path) -> None:
    """The right file runs, and leaves its probe strings as rows; the planted one is refused on all three counts."""
    root = repository(tmp_path)
    made = json.loads(sovereign(root, "corpus", "build", "--contract", "contracts/toy.yaml", "--json").stdout)
    tokenizer = Tokenizer.from_file(f"{made['folder']}/tokenizer.json")
    (root / "tokenizer.json").write_text(tokenizer.to_str())
    contract = root / "contracts/toy.yaml"
    imported = IMPORTED.replace("IDS", str(tokenizer.encode("wörd").ids))
    contract.write_text(contract.read_text().replace("tokenizer: {kind: bpe, vocabulary: 300}\n", imported))
    right = sovereign(root, "run", "--contract", "contracts/toy.yaml", "--device", "cpu")
    (rows,) = (root / "evidence/toy").glob("*/rows/tokenizer.jsonl")
    probes = [json.loads(line) for line in rows.read_text().splitlines()]
    planted(root / "tokenizer.json")
    wrong = sovereign(root, "run", "--contract", "contracts/toy.yaml", "--device", "cpu")

    assert right.returncode == 0, right.stderr
    assert all(
        probe["exact"] and tokenizer.decode(probe["ids"], skip_special_tokens=False) == probe["text"]
        for probe in probes
    )
    assert wrong.returncode == 7
    assert "<|endoftext|> has id 96, where the contract expects 0" in wrong.stderr
    assert "'wörd' gives the ids" in wrong.stderr
    assert "bytes a token, where the contract expects 1.5 to inf" in wrong.stderr
    assert 1 == len(list((root / "evidence/toy").iterdir()))
