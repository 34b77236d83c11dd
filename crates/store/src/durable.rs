//! The only raw file writes of the store.
//!
//! Nothing is visible under its final name before it is whole and on the disk: temporary name in the same file system,
//! `fdatasync`, link or rename, `fsync` of the directory.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a new file may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// By whoever the umask allows.
    Shared,
    /// By its owner alone (0600).
    Private,
}

/// A name that no other writer of this host uses.
pub fn temporary_name(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).expect("the operating system has randomness");
    format!(
        "{prefix}{}-{}-{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed),
        hex::encode(random)
    )
}

/// Creates a directory and its parents, and makes them durable.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dir(parent)?;
    }
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Asks the file system to lay the subdirectories of a directory apart, each with its files: they have nothing to do with each
/// other. ext4 and its kin otherwise put all of them into one group of inodes, together with what lies beside the store, and
/// then look for a free inode past each that was given up there not long ago (`chattr +T`, the Orlov allocator). A hint: other
/// file systems know of no such thing.
#[cfg(target_os = "linux")]
pub(crate) fn lay_apart(dir: &Path) -> io::Result<()> {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let dir = File::open(dir)?;
    let hinted = ioctl_getflags(&dir).and_then(|flags| match flags.contains(IFlags::TOPDIR) {
        true => Ok(()),
        false => ioctl_setflags(&dir, flags | IFlags::TOPDIR),
    });
    if let Err(error) = hinted {
        tracing::debug!(%error, "The file system takes no hint");
    }
    Ok(())
}

/// Elsewhere there is no such hint.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lay_apart(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

/// Makes the bytes of a file durable, whoever wrote them.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_data()
}

/// A new file that nobody else can open for writing.
pub fn create_new(path: &Path, access: Access) -> io::Result<File> {
    let mode = match access {
        Access::Shared => 0o666,
        Access::Private => 0o600,
    };
    OpenOptions::new().write(true).read(true).create_new(true).mode(mode).open(path)
}

/// Writes a whole file under its name, replacing what was there.
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let temporary = write_beside(path, bytes, access)?;
    #[expect(clippy::disallowed_methods, reason = "this module is where renames are made durable")]
    std::fs::rename(&temporary, path)?;
    sync_dir(parent(path))
}

/// The bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Replaces a small text in its place, which costs one write of one sector: no name and no size changes. The text is filled
/// up with NUL; [`read_in_place`] takes that off. One that is too long for a sector is replaced as any file. Every process
/// reads it at once; it is on the disk after [`sync_file`].
pub(crate) fn replace_in_place(path: &Path, text: &str, access: Access) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut sector = text.as_bytes().to_vec();
    sector.resize(text.len().max(SECTOR), 0);
    let file = OpenOptions::new().write(true).open(path);
    match file {
        Ok(file) if sector.len() == SECTOR && file.metadata()?.len() == SECTOR as u64 => {
            file.write_all_at(&sector, 0)
        }
        _ => replace(path, &sector, access),
    }
}

/// Reads such a text.
pub(crate) fn read_in_place(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim_end_matches('\0').to_owned())
}

/// Writes a whole file under a name that must be free. `AlreadyExists` leaves what is there alone.
pub fn create(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let temporary = write_beside(path, bytes, access)?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    linked?;
    sync_dir(parent(path))
}

/// Gives a finished, synced temporary file its final name. Says whether the name was free.
pub fn move_into_place(temporary: &Path, path: &Path) -> io::Result<bool> {
    let fresh = match rename_if_free(temporary, path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    sync_dir(parent(path))?;
    if !fresh {
        std::fs::remove_file(temporary)?;
    }
    Ok(fresh)
}

/// Renames a file unless the new name is taken: one change of names where the file system can do that, else two.
fn rename_if_free(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            other => return Ok(other?),
        }
    }
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

/// Replaces a file by a finished, synced temporary file.
pub fn rename_into_place(temporary: &Path, path: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "this module is where renames are made durable")]
    std::fs::rename(temporary, path)?;
    sync_dir(parent(path))
}

/// Exchanges what two names stand for, in one step. `InvalidInput` or `Unsupported`: this file system cannot.
#[cfg(target_os = "linux")]
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    sync_dir(parent(one))?;
    sync_dir(parent(other))
}

/// Elsewhere nothing can.
#[cfg(not(target_os = "linux"))]
pub fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Appends to a file that is created when it is not there, and makes it durable.
pub fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = !path.exists();
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    if fresh { sync_dir(parent(path)) } else { Ok(()) }
}

/// Removes what somebody who was killed left of writes in a directory. For whoever is the only one who writes there.
pub fn sweep(dir: &Path) -> io::Result<()> {
    for item in std::fs::read_dir(dir)? {
        let item = item?;
        if is_temporary(&item.file_name()) && item.file_type()?.is_file() {
            std::fs::remove_file(item.path())?;
        }
    }
    Ok(())
}

/// Whether a file has the name of a write that is not finished.
pub fn is_temporary(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(".tmp-")
}

/// Shortens a file to a length, for cutting off a torn tail.
pub fn truncate(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_data()
}

fn write_beside(path: &Path, bytes: &[u8], access: Access) -> io::Result<PathBuf> {
    let temporary = parent(path).join(temporary_name(".tmp-"));
    let mut file = create_new(&temporary, access)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if let Err(error) = written {
        drop(std::fs::remove_file(&temporary));
        return Err(error);
    }
    Ok(temporary)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        create(&path, b"first", Access::Shared).unwrap();
        assert_eq!(
            create(&path, b"second", Access::Shared).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        replace(&path, b"third", Access::Shared).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"third");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
