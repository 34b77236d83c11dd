//! Secret values of environments, at the place where they are used: never in a store, a ledger or a log.
//!
//! ```text
//! secrets/<store id>/<environment>/key                  32 bytes, hexadecimal: encrypts and commits
//!                                  <component>/<KEY>    AES-256-GCM: 12 bytes of nonce, then the sealed value
//! ```
//!
//! Files are 0600 in a 0700 directory. A component's slashes are written as `%`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use semel_model::name::{ComponentName, ConfigKey, EnvironmentName};

use crate::durable::{self, Access};
use crate::keys::{create_private_dir, random};

/// The secrets of one environment.
#[derive(Debug, Clone)]
pub struct Vault {
    dir: PathBuf,
}

/// A secret could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Reading or writing a file failed.
    #[error("cannot {action} {path}")]
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
    #[error("secret file {0} cannot be opened with this environment's key")]
    Damaged(PathBuf),
}

impl Vault {
    /// The secrets of an environment of a store, below a directory for all secrets.
    pub fn at(secrets: &Path, store: &str, environment: &EnvironmentName) -> Self {
        Self { dir: secrets.join(store).join(environment.as_str()) }
    }

    /// The environment's key for commitments and encryption, made when it is first asked for.
    pub fn key(&self) -> Result<[u8; 32], VaultError> {
        let path = self.dir.join("key");
        if !path.exists() {
            let failed = |source| VaultError::Io { action: "write", path: path.clone(), source };
            create_private_dir(&self.dir).map_err(failed)?;
            match durable::create(&path, hex::encode(random()).as_bytes(), Access::Private) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
        }
        let text = std::fs::read_to_string(&path).map_err(|source| VaultError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        hex::decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(VaultError::Damaged(path))
    }

    /// Keeps a value.
    pub fn set(&self, component: &ComponentName, key: &ConfigKey, value: &str) -> Result<(), VaultError> {
        let dir = self.component_dir(component);
        let path = dir.join(key.as_str());
        let nonce: [u8; 12] = random()[..12].try_into().expect("twelve of 32 bytes");
        let context = context(component, key);
        let payload = Payload { msg: value.as_bytes(), aad: context.as_bytes() };
        let sealed = self
            .cipher()?
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| VaultError::Damaged(path.clone()))?;
        let bytes = [nonce.as_slice(), &sealed].concat();
        create_private_dir(&dir)
            .and_then(|()| durable::replace(&path, &bytes, Access::Private))
            .map_err(|source| VaultError::Io { action: "write", path, source })
    }

    /// Forgets a value. Says whether there was one.
    pub fn unset(&self, component: &ComponentName, key: &ConfigKey) -> Result<bool, VaultError> {
        let path = self.component_dir(component).join(key.as_str());
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(VaultError::Io { action: "write", path, source }),
        }
    }

    /// All values that are kept for a component.
    pub fn values(&self, component: &ComponentName) -> Result<BTreeMap<ConfigKey, String>, VaultError> {
        let dir = self.component_dir(component);
        let listing = match std::fs::read_dir(&dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(VaultError::Io { action: "read", path: dir, source }),
        };
        let mut values = BTreeMap::new();
        for item in listing.flatten() {
            if let Ok(key) = item.file_name().to_string_lossy().parse::<ConfigKey>() {
                let value = self.open(component, &key, &item.path())?;
                values.insert(key, value);
            }
        }
        Ok(values)
    }

    fn open(&self, component: &ComponentName, key: &ConfigKey, path: &Path) -> Result<String, VaultError> {
        let bytes = std::fs::read(path).map_err(|source| VaultError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let damaged = || VaultError::Damaged(path.to_owned());
        let (nonce, sealed) = bytes.split_at_checked(12).ok_or_else(damaged)?;
        let nonce: [u8; 12] = nonce.try_into().expect("twelve bytes were split off");
        let context = context(component, key);
        let payload = Payload { msg: sealed, aad: context.as_bytes() };
        let value = self.cipher()?.decrypt(&Nonce::from(nonce), payload).map_err(|_| damaged())?;
        String::from_utf8(value).map_err(|_| damaged())
    }

    fn cipher(&self) -> Result<Aes256Gcm, VaultError> {
        Ok(Aes256Gcm::new(&self.key()?.into()))
    }

    fn component_dir(&self, component: &ComponentName) -> PathBuf {
        self.dir.join(component.as_str().replace('/', "%"))
    }
}

/// What a sealed value is bound to, so that a file that is moved opens nowhere else.
fn context(component: &ComponentName, key: &ConfigKey) -> String {
    format!("{component} {key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_sealed_and_bound_to_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::at(dir.path(), "store", &"production".parse().unwrap());
        let (component, key) = ("shop/api".parse().unwrap(), "TOKEN".parse().unwrap());
        vault.set(&component, &key, "hunter2").unwrap();
        assert_eq!(vault.values(&component).unwrap(), BTreeMap::from([(key.clone(), "hunter2".to_owned())]));
        let file = vault.component_dir(&component).join("TOKEN");
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        std::fs::copy(&file, vault.component_dir(&component).join("OTHER")).unwrap();
        assert!(matches!(vault.values(&component), Err(VaultError::Damaged(_))));
        assert!(vault.unset(&component, &"OTHER".parse().unwrap()).unwrap());
        assert!(vault.unset(&component, &key).unwrap());
        assert!(!vault.unset(&component, &key).unwrap());
    }
}
