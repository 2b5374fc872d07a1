"""Signatures: whoever lacks a listed key changes nothing that was signed, and an envelope nobody can check is no pass."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from fabric import NOW, SPEC, edit_json, intent, repository, rows, write_run
from test_spec_life import committed, git, sovereign
from test_verification import metric, restate

from sovereign.canonical import canonical_bytes
from sovereign.gate.evaluation import Evaluation
from sovereign.gate.profile import exit_code
from sovereign.repository import evaluate, open_repository, verified_runs
from sovereign.signing import ALLOWED, policy_at, public_half, sign

KEY, THIEF = Ed25519PrivateKey.from_private_bytes(b"k" * 32), Ed25519PrivateKey.from_private_bytes(b"t" * 32)
ANN = public_half("ann@example.org", KEY)


def allow(root: Path) -> None:
    (root / ALLOWED).write_text(f"# who may sign\n\n{ANN.line} ann's laptop\n")


def signed_run(root: Path, **more: object) -> Path:
    folder = write_run(root, **more)  # type: ignore[arg-type]
    sign(folder, "evidence/toy/x", KEY)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    allow(repository(tmp_path))
    return tmp_path


def stands(root: Path, required: bool = True) -> Evaluation:
    runs = verified_runs(root, policy=policy_at(root, required))
    return evaluate(open_repository(root), NOW, runs=runs)[0]


def status(root: Path, required: bool = True) -> str:
    return stands(root, required).criteria[0].status


def findings(root: Path, required: bool = False) -> list[str]:
    return [f"{one.path}: {one.message}" for one in stands(root, required).findings]


def test_a_signed_run_is_verified_and_discharges(root: Path) -> None:
    """The control: signed by a listed key a run has no findings, and discharges where a signature is required."""
    signed_run(root)
    (run,) = verified_runs(root)

    assert [("intent", "ann@example.org"), ("evidence", "ann@example.org")] == [
        (s.document, s.signer) for s in run.signatures
    ]
    assert ("DISCHARGED", []) == (status(root), findings(root, required=True))


def test_an_envelope_is_what_another_reader_takes_it_for(root: Path) -> None:
    """securesystemslib reads the envelope by itself, verifies it by the key, and finds the document's RFC 8785 bytes."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    folder = signed_run(root)
    for kind in ("intent", "evidence"):
        envelope = Envelope.from_dict(json.loads((folder / f"{kind}.dsse.json").read_text()))
        envelope.verify([SSlibKey.from_crypto(KEY.public_key(), keyid=ANN.fingerprint)], 1)

        assert canonical_bytes(json.loads((folder / f"{kind}.json").read_text())) == envelope.payload


# ── the tamper matrix, column S: digests and recomputation, plus signatures by a key the attacker lacks ─────────────


def kept(folder: Path) -> None:
    """The attacker leaves the envelopes as they are."""


def taken_away(folder: Path) -> None:
    for file in folder.glob("*.dsse.json"):
        file.unlink()


def signed_anew(folder: Path) -> None:
    taken_away(folder)
    sign(folder, "evidence/toy/x", THIEF)


def signed_in_anothers_name(folder: Path) -> None:
    signed_anew(folder)
    for file in folder.glob("*.dsse.json"):
        edit_json(file, lambda value: value["signatures"][0].update(keyid=ANN.fingerprint))


def t1(root: Path, folder: Path) -> None:
    edit_json(folder / "evidence.json", lambda v: metric(v).update(value=1.0, low=0.9, high=1.1))


def t2(root: Path, folder: Path) -> None:
    t1(root, folder)
    restate(folder)


def rewritten(root: Path, folder: Path, spec: str = SPEC) -> None:
    """Write everything of a run again, consistently, and leave its envelopes beside it."""
    envelopes = {file.name: file.read_bytes() for file in folder.glob("*.dsse.json")}
    shutil.rmtree(folder)
    write_run(root, intent(spec=spec), rows(loss=2.0 if spec == SPEC else 3.5))
    for name, data in envelopes.items():
        (folder / name).write_bytes(data)


def loosened(root: Path, folder: Path) -> None:
    rewritten(root, folder, SPEC.replace("bound: 3.0", "bound: 4.0"))
    (root / "spec/toy.yaml").write_text(SPEC.replace("bound: 3.0", "bound: 4.0"))


def copied(root: Path, folder: Path) -> None:
    copy = folder.with_name("20260101T000000Z-bbbbbb")
    shutil.copytree(folder, copy)
    for name in ("intent.json", "evidence.json"):
        edit_json(copy / name, lambda value: value.update(run=copy.name))
    restate(copy)


INVALID: dict[str, tuple[Callable[[Path, Path], None], float]] = {
    "T1 a metric": (t1, 3.5),
    "T2 a metric, digests refreshed": (t2, 3.5),
    "T3 rows, digests and statement rewritten consistently": (rewritten, 3.5),
    "T5 a failing run: loosened and regenerated": (loosened, 3.5),
    "T9 copied as another run": (copied, 2.5),
}  # fmt: skip


@pytest.mark.parametrize(
    "envelopes", [kept, taken_away, signed_anew, signed_in_anothers_name], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("act", INVALID)
def test_what_was_signed_is_not_rewritten(root: Path, act: str, envelopes: Callable[[Path], None]) -> None:
    """Without a listed key nothing that was signed becomes something else, whatever is done to the envelopes.

    Caught: keys believed by their id; the payload not compared with the document; a missing envelope let pass.
    """
    tamper, loss = INVALID[act]
    folder = signed_run(root, said=rows(loss=loss))
    tamper(root, folder)
    envelopes(folder)

    assert ("INVALID", 4) == (status(root), int(exit_code([stands(root)])))


def test_what_is_rewritten_consistently_is_missed_without_signatures(root: Path) -> None:
    """T3 and T5 are what signatures are for: without them, and without a base, nobody could tell."""
    folder = write_run(root, said=rows(loss=3.5))
    rewritten(root, folder)

    assert ("DISCHARGED", "INVALID") == (status(root, required=False), status(root, required=True))


@pytest.mark.parametrize("envelopes", [kept, taken_away])
@pytest.mark.parametrize(
    "edit",
    [lambda text: "{", lambda text: text.replace('"steps": 10', '"steps": 10, "steps": 10'),
     lambda text: text.replace('"steps": 10', '"steps": NaN')],
    ids=["cut", "a duplicate key", "NaN"],
)  # fmt: skip
def test_t10_what_is_malformed_is_invalid(
    root: Path, edit: Callable[[str], str], envelopes: Callable[[Path], None]
) -> None:
    """T10: a document that cannot be read is INVALID and exits 3, with an envelope beside it and without."""
    folder = signed_run(root)
    (folder / "evidence.json").write_text(edit((folder / "evidence.json").read_text()))
    envelopes(folder)

    assert ("INVALID", 3) == (status(root), int(exit_code([stands(root)])))


def moved_on(root: Path, folder: Path) -> None:
    contract = root / "contracts/toy.yaml"
    contract.write_text(contract.read_text().replace("hidden: 16", "hidden: 32"))


def relaid(root: Path, folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.write_bytes(json.dumps(json.loads(file.read_text()), indent=7).replace("\n", "\r\n").encode())


def result_deleted(root: Path, folder: Path) -> None:
    (folder / "evidence.json").unlink()
    (folder / "evidence.dsse.json").unlink()


def spec_of(old: str, new: str) -> Callable[[Path, Path], None]:
    return lambda root, folder: (root / "spec/toy.yaml").write_text(SPEC.replace(old, new)) and None


STANDS: dict[str, tuple[Callable[[Path, Path], object], float, str]] = {
    "T4 the bound loosened": (spec_of("bound: 3.0", "bound: 4.0"), 2.5, "STALE"),
    "T6 a failing result deleted": (result_deleted, 3.5, "OPEN"),
    "T7 a failing run deleted": (lambda root, folder: shutil.rmtree(folder), 3.5, "OPEN"),
    "T8 the contract moved on": (moved_on, 2.5, "STALE"),
    "T12 another layout": (relaid, 2.5, "DISCHARGED"),
    "T13 a title edited": (spec_of("It learns", "It learned"), 2.5, "DISCHARGED"),
    "T14 a passing run beside a failing one": (
        lambda root, folder: signed_run(root, promise=intent("20260101T000000Z-bbbbbb"), said=rows(seed=5)), 3.5, "FALSIFIED"),
}  # fmt: skip


@pytest.mark.parametrize("act", STANDS)
def test_what_signatures_do_not_change(root: Path, act: str) -> None:
    """Where nothing that was signed is rewritten, a status is what it is without signatures; omission is not seen."""
    tamper, loss, expected = STANDS[act]
    tamper(root, signed_run(root, said=rows(loss=loss)))

    assert expected == status(root)


def test_t11_a_dropped_criterion_is_invalid(root: Path) -> None:
    """T11: what a signed run was held to is not forgotten by the spec."""
    signed_run(root)
    lines = SPEC.splitlines(keepends=True)
    (root / "spec/toy.yaml").write_text("".join(line for line in lines if "TOY-001" not in line))

    assert {"TOY-001": "INVALID", "TOY-002": "DISCHARGED"} == {one.id: one.status for one in stands(root).criteria}


def test_t15_too_few_documents_are_partial(root: Path) -> None:
    """T15: a signature makes nothing of too little."""
    signed_run(root, said=rows(documents=5))

    assert status(root) == "PARTIAL"


# ── envelopes ────────────────────────────────────────────────────────────────────────────────────


def another(signature: str) -> str:
    """Return base64 of a signature with its first bit turned over."""
    raw = base64.b64decode(signature)
    return base64.b64encode(bytes([raw[0] ^ 128]) + raw[1:]).decode()


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda v: v["signatures"][0].update(sig=another(v["signatures"][0]["sig"])),
         "names the key of ann@example.org, by which its signature does not verify"),
        (lambda v: v.update(payload="e30="), "signs other bytes than intent.json holds"),
        (lambda v: v.update(payloadType="text/plain"), "text/plain is not application/vnd.sovereign.intent.v1+json"),
        (lambda v: v.update(signatures=[]), "signatures: tuple should have at least 1 item"),
        (lambda v: v.update(more=1), "more: unknown key"),
        (lambda v: v.update(payload="***"), "payload: string should match pattern"),
    ],
)  # fmt: skip
def test_a_bad_envelope_is_invalid(root: Path, edit: Callable[[dict[str, object]], None], told: str) -> None:
    """An envelope that is not what it says makes the run INVALID, required or not."""
    folder = signed_run(root)
    edit_json(folder / "intent.dsse.json", edit)

    assert any(told in one for one in findings(root)), findings(root)
    assert status(root, required=False) == "INVALID"


def test_an_envelope_of_nothing_is_invalid(root: Path) -> None:
    """An envelope says that its document was there."""
    folder = signed_run(root)
    (folder / "evidence.json").unlink()

    assert any("signs evidence.json, which is not there" in one for one in findings(root))


def test_a_key_id_decides_nothing(root: Path) -> None:
    """A signature by a listed key counts under whatever id: the key is tried, the id is a hint."""
    folder = signed_run(root)
    edit_json(folder / "evidence.dsse.json", lambda value: value["signatures"][0].update(keyid="whoever"))

    assert ("DISCHARGED", []) == (status(root), findings(root))


def test_an_unknown_key_is_told_and_shows_nothing(root: Path) -> None:
    """A signature by a key that nobody listed neither helps nor harms, and standard error says whose key it names."""
    sign(write_run(root), "evidence/toy/x", THIEF)
    found = sovereign(root, "verify")

    assert ("DISCHARGED", "INVALID") == (status(root, required=False), status(root))
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("signed by a key that spec/allowed_signers does not list (SHA256:") == 2


def test_signatures_may_come_later_and_may_not_go(root: Path) -> None:
    """Against a base, an envelope may be added, and may gain signatures; one that stood there may not go or lose any."""
    folder = write_run(root)
    committed(root)
    sign(folder, "evidence/toy/x", KEY)
    added = sovereign(root, "verify", "--base", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "signed")
    alone = (folder / "intent.dsse.json").read_bytes()
    sign(folder, "evidence/toy/x", THIEF)
    grown = sovereign(root, "verify", "--base", "main")
    git(root, "commit", "-qam", "signed twice")
    (folder / "intent.dsse.json").write_bytes(alone)
    lost = sovereign(root, "verify", "--base", "main")
    (folder / "intent.dsse.json").unlink()
    gone = sovereign(root, "verify", "--base", "main")

    assert (0, 0, 4, 4) == tuple(one.returncode for one in (added, grown, lost, gone)), lost.stderr
    assert "intent.dsse.json stood at the base and was changed" in lost.stderr
    assert "intent.dsse.json stood at the base and was removed" in gone.stderr


def test_a_change_does_not_bring_its_own_keys(root: Path) -> None:
    """With a base, its allowed_signers decide: a key listed by the change itself counts once it is merged.

    Caught: the head's file read.
    """
    write_run(root)
    committed(root)
    folder = write_run(root, intent("20260102T000000Z-bbbbbb"), rows(seed=5))
    for one in folder.parent.iterdir():
        sign(one, "evidence/toy/x", THIEF)
    (root / ALLOWED).write_text(public_half("thief", THIEF).line + "\n")
    alone = sovereign(root, "gates", "--require-signature")
    against = sovereign(root, "gates", "--require-signature", "--base", "main")
    review = sovereign(root, "review", "--require-signature", "--base", "main")
    verify = sovereign(root, "verify", "--require-signature", "--base", "main")

    assert (0, 4, 4, 4) == tuple(one.returncode for one in (alone, against, review, verify)), alone.stdout
    assert "carries no signature by anyone whom spec/allowed_signers lists" in verify.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ann", "expected `NAME ssh-ed25519 KEY`"),
        ("ann ssh-rsa AAAA", "expected `NAME ssh-ed25519 KEY`"),
        ("ann ssh-ed25519 !!", "the key of ann is not base64"),
        ("ann ssh-ed25519 AAAA", "the key of ann is not an ssh-ed25519 key"),
    ],
)
def test_a_malformed_list_of_signers_is_named_by_line(root: Path, line: str, told: str) -> None:
    """A list that cannot be read lists nobody, and exits 3 with the line."""
    signed_run(root)
    (root / ALLOWED).write_text(f"{ANN.line}\n{line}\n")
    found = sovereign(root, "verify")

    assert found.returncode == 3
    assert f"{ALLOWED}:2:1: {told}" in found.stderr


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def key_file(path: Path, key: object = KEY, form: PrivateFormat = PrivateFormat.OpenSSH, word: bytes = b"") -> Path:
    kept = BestAvailableEncryption(word) if word else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, form, kept))  # type: ignore[attr-defined]
    return path


@pytest.mark.parametrize("form", [PrivateFormat.OpenSSH, PrivateFormat.PKCS8])
def test_sign_writes_envelopes_once(root: Path, tmp_path: Path, form: PrivateFormat) -> None:
    """`sovereign sign` signs what stands, tells the line that lists the key, and adds nothing the second time."""
    write_run(root)
    key = key_file(tmp_path / "key", form=form)
    given = ("sign", "20260101T000000Z-aaaaaa", "--key", str(key), "--name", "ann@example.org")
    first, again = sovereign(root, *given), sovereign(root, *given)
    shown = json.loads(sovereign(root, "verify", "--require-signature", "--json").stdout)["runs"][0]["signatures"]

    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert [
        f"evidence/toy/20260101T000000Z-aaaaaa/{kind}.dsse.json" for kind in ("intent", "evidence")
    ] == first.stdout.split()
    assert ANN.line in first.stderr
    assert (again.stdout, "signed by this key already" in again.stderr) == ("", True)
    assert ["ann@example.org"] * 2 == [one["signer"] for one in shown]


def test_only_what_verifies_is_signed(root: Path, tmp_path: Path) -> None:
    """Nobody is made to stand behind evidence that is not so."""
    t1(root, folder := write_run(root))
    found = sovereign(root, "sign", "toy/20260101T000000Z-aaaaaa", "--key", str(key_file(tmp_path / "key")))

    assert (found.returncode, list(folder.glob("*.dsse.json"))) == (4, []), found.stderr


def test_a_key_that_cannot_sign_is_a_usage_error(root: Path, tmp_path: Path) -> None:
    """Another kind of key, a public one, and a wrong passphrase exit 2 and say what would be right."""
    write_run(root)
    rsa = key_file(tmp_path / "rsa", generate_private_key(65537, 2048))
    public = tmp_path / "public"
    public.write_bytes(KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    locked = key_file(tmp_path / "locked", form=PrivateFormat.PKCS8, word=b"word")
    told = [sovereign(root, "sign", "20260101T000000Z-aaaaaa", "--key", str(one)) for one in (rsa, public)]
    wrong, right = (sovereign(root, "sign", "20260101T000000Z-aaaaaa", "--key", str(locked), "--passphrase", word)
                    for word in ("other", "word"))  # fmt: skip

    assert [2, 2, 2, 0] == [one.returncode for one in (*told, wrong, right)], [
        one.stderr for one in (*told, wrong, right)
    ]
    assert "ssh-keygen -t ed25519" in told[0].stderr
    assert not any("Traceback" in one.stderr for one in (*told, wrong))


def test_without_the_extra_nothing_passes_in_silence(root: Path, tmp_path: Path) -> None:
    """Where there are signatures to check and nothing to check them with, every evaluating command says what brings it."""
    signed_run(root)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("securesystemslib", "cryptography"):
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n")
    path = os.pathsep.join([str(blocked), *filter(None, [os.environ.get("PYTHONPATH")])])

    def told(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from sovereign.cli.main import main; main()", *arguments, "--root", str(root)],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False,
        )  # fmt: skip

    for arguments in (["gates"], ["verify"], ["gates", "--require-signature"], ["scoreboard"]):
        found = told(*arguments)
        assert (found.returncode, "pip install 'sovereign[sign]'" in found.stderr) == (2, True), arguments
    (root / ALLOWED).unlink()
    found = told("verify")
    assert found.returncode == 0  # nobody is listed, so no signature could count
    assert "does not list" in found.stderr


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen to compare with")
def test_the_fingerprint_is_what_ssh_keygen_prints(tmp_path: Path) -> None:
    """The hint in an envelope is the name by which OpenSSH's own tools call the key."""
    public = tmp_path / "key.pub"
    public.write_text(ANN.line.split(" ", 1)[1] + "\n")
    printed = subprocess.run(["ssh-keygen", "-lf", str(public)], capture_output=True, text=True, check=True).stdout

    assert ANN.fingerprint == printed.split()[1]
