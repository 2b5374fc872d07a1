"""Signatures: who stands behind a run's documents, by keys that the policy lists.

Keys are ed25519, listed in spec/allowed_signers as OpenSSH writes them. A signature that names a listed key and does not
verify is an integrity finding; one by a key that nobody listed says nothing, and is told. That an envelope holds the very
bytes of the document beside it is `verification`'s to say, and needs no key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sovereign.canonical import Malformed, Problem, canonical_bytes, pretty, read, validate, write_atomic
from sovereign.evidence.envelope import SIGNABLE, Envelope, Signable, Signature, file_name, unsigned
from sovereign.gate.admission import Finding, Signed, VerifiedRun

ALLOWED = "spec/allowed_signers"
KIND = "ssh-ed25519"


@dataclass(frozen=True)
class Signer:
    """A name and its public key, 32 bytes."""

    name: str
    key: bytes

    @property
    def blob(self) -> bytes:
        """The key as OpenSSH frames it (RFC 8709)."""
        return b"".join(struct.pack(">I", len(part)) + part for part in (KIND.encode(), self.key))

    @property
    def fingerprint(self) -> str:
        """What `ssh-keygen -lf` prints of the key; it stands in envelopes as the hint."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def line(self) -> str:
        return f"{self.name} {KIND} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True)
class Policy:
    """Whose signatures count, and whether runs without one may be weighed."""

    signers: tuple[Signer, ...] = ()
    required: bool = False


def policy_at(root: Path, required: bool = False) -> Policy:
    """Return the policy that stands under `root`: the base's where there is one, so that no change brings its own keys."""
    return Policy(signers_at(root)[0], required)


def signers_at(root: Path) -> tuple[tuple[Signer, ...], tuple[Problem, ...]]:
    """Return the signers that spec/allowed_signers lists, and what is wrong with it; nobody where any line is."""
    path = root / ALLOWED
    if not path.is_file():
        return (), ()
    signers: list[Signer] = []
    problems: list[Problem] = []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            found = _signer(line)
            if isinstance(found, str):
                problems.append(Problem(ALLOWED, found, number))
            else:
                signers.append(found)
    return (() if problems else tuple(signers)), tuple(problems)


def _signer(line: str) -> Signer | str:
    """Return the signer of a line, or what is wrong with it."""
    words = line.split()
    if len(words) < 3 or words[1] != KIND:
        return f"expected `NAME {KIND} KEY`, one key a line and no options, as `sovereign sign` prints it"
    try:
        blob = base64.b64decode(words[2], validate=True)
    except binascii.Error:
        return f"the key of {words[0]} is not base64"
    signer = Signer(words[0], blob[-32:])
    return signer if blob == signer.blob else f"the key of {words[0]} is not an {KIND} key"


# ── checking ─────────────────────────────────────────────────────────────────────────────────────


def checked(run: VerifiedRun, path: Path, policy: Policy) -> VerifiedRun:
    """Return the run with its signatures, and with a finding where one is bad, or one that must be there is not.

    Raises ModuleNotFoundError where there are signatures to check and the extra `sign` is not installed: a status that
    hung on what is installed would be none.
    """
    if run.findings or not (run.envelopes or policy.required):
        return run  # what is INVALID already is not read further
    findings: list[Finding] = []
    signatures: list[Signed] = []
    for kind in run.envelopes:
        place = f"evidence/{run.name}/{file_name(kind)}"
        envelope = _envelope(path, kind, place)
        for one in envelope.signatures:
            signer = next((known for known in policy.signers if _verifies(known, one, envelope)), None)
            named = next((known for known in policy.signers if known.fingerprint == one.keyid), None)
            if signer is None and named is not None:
                told = f"names the key of {named.name}, by which its signature does not verify"
                findings.append(Finding("integrity", place, told))
            signatures.append(Signed(kind, one.keyid, signer.name if signer else ""))
    if policy.required:
        standing: tuple[Signable, ...] = ("intent", "evidence") if run.statement else ("intent",)
        by_known = {one.document for one in signatures if one.signer}
        told = f"carries no signature by anyone whom {ALLOWED} lists, and one is required"
        findings += [
            Finding("integrity", f"evidence/{run.name}/{kind}.json", told) for kind in standing if kind not in by_known
        ]
    return replace(run, signatures=tuple(signatures), findings=(*run.findings, *findings))


def _envelope(path: Path, kind: Signable, place: str) -> Envelope:
    return validate(Envelope, read(path / file_name(kind), place))


def _verifies(signer: Signer, signature: Signature, envelope: Envelope) -> bool:
    """Say whether the signature is this signer's, whatever key it names."""
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
    from securesystemslib.signer import Signature as Given
    from securesystemslib.signer import SSlibKey

    key = SSlibKey(signer.fingerprint, "ed25519", "ed25519", {"public": signer.key.hex()})
    try:
        # under the key's own id: the library compares ids before it looks at bytes (its issue #416)
        key.verify_signature(Given(key.keyid, base64.b64decode(signature.sig).hex()), envelope.signed)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True


# ── signing ──────────────────────────────────────────────────────────────────────────────────────


class Unusable(Exception):
    """A key that nothing can be signed with."""


def private_key(path: Path, passphrase: bytes | None = None) -> Any:
    """Return the ed25519 private key in a file, as OpenSSH or PKCS#8 (PEM) write it.

    Raises Unusable for a file that is no such key, and TypeError where it needs a passphrase and none is given.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    data = path.read_bytes()
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        key = load(data, passphrase)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unusable(f"{path} is no private key that can be read: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Unusable(f"{path} is another kind of key; `ssh-keygen -t ed25519 -f FILE` makes the right one")
    return key


def public_half(name: str, private: Any) -> Signer:
    return Signer(name, private.public_key().public_bytes_raw())


def sign(path: Path, name: str, private: Any) -> tuple[Path, ...]:
    """Sign every document that stands in the run's folder at `path`; return the envelopes that are new or have grown."""
    from securesystemslib.signer import CryptoSigner, SSlibKey

    me = public_half("", private)
    signer = CryptoSigner(private, SSlibKey.from_crypto(private.public_key(), keyid=me.fingerprint))
    written = []
    for kind in SIGNABLE:
        if not (path / f"{kind}.json").is_file():
            continue
        place = path / file_name(kind)
        content = canonical_bytes(read(path / f"{kind}.json", f"{name}/{kind}.json").value)
        envelope = _envelope(path, kind, f"{name}/{place.name}") if place.exists() else unsigned(kind, content)
        if envelope.content != content:
            raise Malformed([Problem(f"{name}/{place.name}", f"signs other bytes than {kind}.json holds")])
        if any(_verifies(me, one, envelope) for one in envelope.signatures):
            continue
        given = base64.b64encode(bytes.fromhex(signer.sign(envelope.signed).signature)).decode()
        mine = Signature(keyid=me.fingerprint, sig=given)
        grown = envelope.model_copy(update={"signatures": (*envelope.signatures, mine)})
        write_atomic(place, pretty(grown.plain()))
        written.append(place)
    return tuple(written)
