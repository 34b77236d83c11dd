//! The keys of a store: one per role, made on first use, outside the store's directory.
//!
//! ```text
//! keys/<store id>/ledger        Ed25519 seed, hexadecimal       signs checkpoints
//!                 evidence.pem  P-256, PKCS#8                   signs test results
//!                 builder.pem   P-256, PKCS#8                   signs provenance
//!                 promoter-<environment>.pem                    signs promotions to that environment alone
//!                 identity      32 bytes, hexadecimal           makes pseudonyms of actors
//!                 checkpoint    the newest checkpoint that was signed
//! ```
//!
//! A key that a verifier trusts for "promoted to production" signs nothing else, because `cosign verify` accepts any
//! statement of a key. No verb exports a private key.

use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey as LedgerSigningKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::ecdsa::{SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use semel_model::name::EnvironmentName;
use semel_model::note::LedgerKey;
use sha2::Sha256;

use crate::durable::{self, Access};

/// What a key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Signs what was built.
    Builder,
    /// Signs what was found out about it.
    Evidence,
    /// Signs that it may run in one environment.
    Promoter(EnvironmentName),
}

impl Role {
    fn file_name(&self) -> String {
        match self {
            Self::Builder => "builder.pem".to_owned(),
            Self::Evidence => "evidence.pem".to_owned(),
            Self::Promoter(environment) => format!("promoter-{environment}.pem"),
        }
    }
}

/// The directory with the keys of one store.
#[derive(Debug, Clone)]
pub struct KeyRing {
    dir: PathBuf,
}

/// A key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Reading or writing a file failed.
    #[error("cannot {action} key file {path}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("key file {0} is damaged")]
    Damaged(PathBuf),
    /// It is the key of another ledger.
    #[error("{0} is not the key of this store's ledger: bring the store's keys back from a backup")]
    Foreign(PathBuf),
    /// The ledger's key is not on this machine.
    #[error(
        "the keys of this store are not here ({0}): a copy of a store is not a copy of its keys; restore them from a backup"
    )]
    Missing(PathBuf),
}

impl KeyRing {
    /// The keys of a store below a directory for all keys.
    pub fn at(keys: &Path, store: &str) -> Self {
        Self { dir: keys.join(store) }
    }

    /// Where they lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the ledger's key. Fails if there is one.
    pub fn create_ledger_key(&self) -> Result<LedgerSigningKey, KeyError> {
        let key = LedgerSigningKey::from_bytes(&random());
        self.write_new("ledger", hex::encode(key.to_bytes()).as_bytes())?;
        Ok(key)
    }

    /// The key of the ledger that is known by a public key: what another one signs could never be verified.
    pub fn ledger_key(&self, public: Option<&LedgerKey>) -> Result<LedgerSigningKey, KeyError> {
        let path = self.dir.join("ledger");
        let Some(text) = self.read("ledger")? else { return Err(KeyError::Missing(path)) };
        let Some(seed) = seed(&text) else { return Err(KeyError::Damaged(path)) };
        let key = LedgerSigningKey::from_bytes(&seed);
        match public.is_some_and(|public| public.key == key.verifying_key()) {
            true => Ok(key),
            false => Err(KeyError::Foreign(path)),
        }
    }

    /// The key of a role, made when it is first asked for.
    pub fn role_key(&self, role: &Role) -> Result<SigningKey, KeyError> {
        let name = role.file_name();
        if let Some(key) = self.read_role(&name)? {
            return Ok(key);
        }
        let key = loop {
            // A random scalar is out of range once in 2^32 tries.
            if let Ok(key) = SigningKey::from_slice(&random()) {
                break key;
            }
        };
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::Damaged(self.dir.join(&name)))?;
        match self.write_new(&name, pem.as_bytes()) {
            Ok(()) => {}
            // Another process was first: its key is the one.
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        self.read_role(&name)?.ok_or_else(|| KeyError::Missing(self.dir.join(&name)))
    }

    /// The public keys that exist for the roles, without making any.
    pub fn existing_public_keys(&self) -> Result<Vec<VerifyingKey>, KeyError> {
        let listing = match std::fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(KeyError::Io { action: "read", path: self.dir.clone(), source }),
        };
        let mut keys = Vec::new();
        for item in listing.flatten() {
            let name = item.file_name().to_string_lossy().into_owned();
            if name.ends_with(".pem")
                && let Some(key) = self.read_role(&name)?
            {
                keys.push(*key.verifying_key());
            }
        }
        Ok(keys)
    }

    /// The pseudonym of somebody: `HMAC-SHA256(identity key, issuer ‖ 0x00 ‖ name)`, its first 16 hexadecimal digits.
    pub fn pseudonym(&self, issuer: &str, name: &str) -> Result<String, KeyError> {
        let path = self.dir.join("identity");
        let text = match self.read("identity")? {
            Some(text) => text,
            None => {
                match self.write_new("identity", hex::encode(random()).as_bytes()) {
                    Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
                self.read("identity")?.ok_or_else(|| KeyError::Missing(path.clone()))?
            }
        };
        let key = seed(&text).ok_or(KeyError::Damaged(path))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        mac.update(issuer.as_bytes());
        mac.update(&[0]);
        mac.update(name.as_bytes());
        Ok(hex::encode(mac.finalize().into_bytes())[..16].to_owned())
    }

    /// The newest checkpoint that was signed with the ledger's key.
    pub fn last_checkpoint(&self) -> Result<Option<String>, KeyError> {
        self.read("checkpoint")
    }

    /// Remembers the newest checkpoint: every process sees it, and [`Self::checkpoint_to_disk`] keeps it when the power goes.
    pub fn remember_checkpoint(&self, note: &str) -> Result<(), KeyError> {
        let path = self.dir.join("checkpoint");
        durable::replace_in_place(&path, note, Access::Private).map_err(|source| KeyError::Io {
            action: "write",
            path,
            source,
        })
    }

    /// Makes durable what is remembered, whoever wrote it.
    pub fn checkpoint_to_disk(&self) -> Result<(), KeyError> {
        let path = self.dir.join("checkpoint");
        match durable::sync_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| KeyError::Io { action: "write", path, source }),
        }
    }

    fn read_role(&self, name: &str) -> Result<Option<SigningKey>, KeyError> {
        let Some(pem) = self.read(name)? else { return Ok(None) };
        SigningKey::from_pkcs8_pem(&pem).map(Some).map_err(|_| KeyError::Damaged(self.dir.join(name)))
    }

    fn read(&self, name: &str) -> Result<Option<String>, KeyError> {
        let path = self.dir.join(name);
        match durable::read_in_place(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyError::Io { action: "read", path, source }),
        }
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), KeyError> {
        let path = self.dir.join(name);
        let failed = |source| KeyError::Io { action: "write", path: path.clone(), source };
        create_private_dir(&self.dir).map_err(failed)?;
        durable::create(&path, bytes, Access::Private).map_err(failed)
    }
}

/// Creates a directory that only its owner may enter.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if dir.is_dir() {
        return Ok(());
    }
    durable::create_dir(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

fn seed(text: &str) -> Option<[u8; 32]> {
    hex::decode(text.trim()).ok()?.try_into().ok()
}

pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ring = KeyRing::at(dir.path(), "store");
        let first = ring.role_key(&Role::Builder).unwrap();
        assert_eq!(ring.role_key(&Role::Builder).unwrap().to_bytes(), first.to_bytes());
        let production = Role::Promoter("production".parse().unwrap());
        assert_ne!(ring.role_key(&production).unwrap().to_bytes(), first.to_bytes());
        for file in ["builder.pem", "promoter-production.pem"] {
            let mode = std::fs::metadata(ring.dir().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(ring.existing_public_keys().unwrap().len(), 2);
    }

    #[test]
    fn a_pseudonym_is_stable_and_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ring = KeyRing::at(dir.path(), "store");
        let one = ring.pseudonym("local", "ana").unwrap();
        assert_eq!(ring.pseudonym("local", "ana").unwrap(), one);
        assert_ne!(ring.pseudonym("local", "bo").unwrap(), one);
        let other = KeyRing::at(dir.path(), "other");
        assert_ne!(other.pseudonym("local", "ana").unwrap(), one);
    }

    #[test]
    fn missing_and_damaged_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let ring = KeyRing::at(dir.path(), "store");
        assert!(matches!(ring.ledger_key(None), Err(KeyError::Missing(_))));
        ring.create_ledger_key().unwrap();
        durable::replace(&ring.dir().join("ledger"), b"zz", Access::Private).unwrap();
        assert!(matches!(ring.ledger_key(None), Err(KeyError::Damaged(_))));
    }
}
