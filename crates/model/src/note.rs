//! Signed notes and checkpoints (C2SP `signed-note` and `tlog-checkpoint`, v1.0.0).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::merkle::Hash;

const ED25519: u8 = 0x01;

/// A tree size and its root, under the name of the ledger that signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger's name, fixed when the store is created. Host-like, so that other verifiers accept it.
    pub origin: String,
    /// How many leaves the tree has.
    pub size: u64,
    /// The root of the tree.
    pub root: Hash,
}

/// The public half of a ledger's key, under its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerKey {
    /// The ledger's name.
    pub origin: String,
    /// The Ed25519 public key.
    pub key: VerifyingKey,
}

/// Why a signed checkpoint is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text has not the form of a checkpoint.
    #[error("not a signed checkpoint: {0}")]
    Malformed(&'static str),
    /// It was made by another ledger.
    #[error("the checkpoint is of ledger `{found}`, not of `{expected}`")]
    Origin {
        /// The name in the checkpoint.
        found: String,
        /// The name that was expected.
        expected: String,
    },
    /// No line carries a good signature of the expected key.
    #[error("the checkpoint carries no valid signature of ledger `{0}`")]
    Signature(String),
}

impl Checkpoint {
    /// The signed text: three lines.
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// The whole signed note.
    pub fn sign(&self, key: &SigningKey) -> String {
        let body = self.body();
        let public = LedgerKey { origin: self.origin.clone(), key: key.verifying_key() };
        let mut blob = public.id().to_vec();
        blob.extend_from_slice(&key.sign(body.as_bytes()).to_bytes());
        format!("{body}\n— {} {}\n", self.origin, BASE64.encode(blob))
    }

    /// Reads a signed note and checks its signature.
    pub fn verify(note: &str, key: &LedgerKey) -> Result<Self, NoteError> {
        let (text, signatures) = note.split_once("\n\n").ok_or(NoteError::Malformed("no blank line"))?;
        let checkpoint = Self::parse_body(text)?;
        if checkpoint.origin != key.origin {
            return Err(NoteError::Origin { found: checkpoint.origin, expected: key.origin.clone() });
        }
        let body = checkpoint.body();
        let signed = signatures.lines().any(|line| key.signed(line, body.as_bytes()));
        if signed { Ok(checkpoint) } else { Err(NoteError::Signature(key.origin.clone())) }
    }

    /// Reads the text of a note without looking at its signatures.
    pub fn read_unverified(note: &str) -> Result<Self, NoteError> {
        let (text, _) = note.split_once("\n\n").ok_or(NoteError::Malformed("no blank line"))?;
        Self::parse_body(text)
    }

    fn parse_body(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(NoteError::Malformed("expected three lines"));
        };
        let number: u64 = size.parse().map_err(|_| NoteError::Malformed("the size is no number"))?;
        if number.to_string() != size || origin.is_empty() {
            return Err(NoteError::Malformed("the size or the origin is not in its one spelling"));
        }
        let root = BASE64.decode(root).ok().and_then(|bytes| Hash::try_from(bytes).ok());
        Ok(Self {
            origin: origin.to_owned(),
            size: number,
            root: root.ok_or(NoteError::Malformed("the root"))?,
        })
    }
}

impl LedgerKey {
    /// The first four bytes of `SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key)`, which stand before every signature.
    pub fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.origin.as_bytes());
        hash.update([b'\n', ED25519]);
        hash.update(self.key.as_bytes());
        let full: [u8; 32] = hash.finalize().into();
        [full[0], full[1], full[2], full[3]]
    }

    fn signed(&self, line: &str, body: &[u8]) -> bool {
        let Some((name, blob)) = line.strip_prefix("— ").and_then(|rest| rest.rsplit_once(' ')) else {
            return false;
        };
        let Ok(blob) = BASE64.decode(blob) else { return false };
        let Some((id, signature)) = blob.split_at_checked(4) else { return false };
        name == self.origin
            && id == self.id()
            && Signature::from_slice(signature)
                .is_ok_and(|signature| self.key.verify(body, &signature).is_ok())
    }

    /// Reads the verifier key text `name+hex(id)+base64(0x01 ‖ key)`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '+');
        let (origin, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = BASE64.decode(key).ok()?;
        let (kind, key) = bytes.split_first()?;
        let key = VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
        let this = Self { origin: origin.to_owned(), key };
        (*kind == ED25519 && hex::encode(this.id()) == id).then_some(this)
    }
}

impl fmt::Display for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blob = vec![ED25519];
        blob.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.origin, hex::encode(self.id()), BASE64.encode(blob))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Checkpoint, SigningKey) {
        let checkpoint = Checkpoint { origin: "example.semel".into(), size: 7, root: [9; 32] };
        (checkpoint, SigningKey::from_bytes(&[7; 32]))
    }

    #[test]
    fn a_signed_checkpoint_reads_back_and_its_form_is_frozen() {
        let (checkpoint, key) = example();
        let public = LedgerKey { origin: checkpoint.origin.clone(), key: key.verifying_key() };
        let note = checkpoint.sign(&key);
        assert_eq!(Checkpoint::verify(&note, &public), Ok(checkpoint));
        assert_eq!(LedgerKey::parse(&public.to_string()), Some(public));
        assert!(note.starts_with(
            "example.semel\n7\nCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n\n— example.semel "
        ));
    }

    #[test]
    fn a_changed_or_foreign_checkpoint_is_refused() {
        let (checkpoint, key) = example();
        let public = LedgerKey { origin: checkpoint.origin.clone(), key: key.verifying_key() };
        let note = checkpoint.sign(&key);
        assert!(matches!(
            Checkpoint::verify(&note.replacen('7', "8", 1), &public),
            Err(NoteError::Signature(_))
        ));
        let other =
            LedgerKey { origin: checkpoint.origin, key: SigningKey::from_bytes(&[8; 32]).verifying_key() };
        assert!(matches!(Checkpoint::verify(&note, &other), Err(NoteError::Signature(_))));
        let elsewhere = LedgerKey { origin: "other".into(), key: public.key };
        assert!(matches!(Checkpoint::verify(&note, &elsewhere), Err(NoteError::Origin { .. })));
        assert!(Checkpoint::verify("nonsense", &public).is_err());
    }
}
