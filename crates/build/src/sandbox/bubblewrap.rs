//! Bubblewrap: namespaces, through the program `bwrap`.
//!
//! Everything is at the same place in every build on every host: the tree, the home, the temporary directory, the host's
//! name, the user. So a path that a compiler writes into its output says nothing about who built it, and does not differ.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{HostEnvironment, Inside, Permit, Room, view};

/// The user and group that a command sees itself as. Not root, as which archives are unpacked with owners that the
/// namespace does not have.
const USER: &str = "1000";

/// Namespaces and rights that every command gets.
pub(super) const APART: [&str; 11] = [
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--hostname",
    "build",
    "--cap-drop",
    "ALL",
    "--die-with-parent",
    "--new-session",
];

/// What `bwrap` is asked for in order to see whether it works here: every namespace, and what is mounted anew.
pub(super) const TRIAL: [&str; 15] = [
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-net",
    "--die-with-parent",
    "--ro-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--",
    "/bin/true",
];

/// Where a command finds the certificate authorities of the caller's way out.
const AUTHORITIES: &str = "/authorities";

/// Where everything is inside.
pub(super) fn inside() -> Inside {
    Inside {
        tree: PathBuf::from("/build"),
        home: PathBuf::from("/builder"),
        tmp: PathBuf::from("/tmp"),
        semel: PathBuf::from("/semel"),
        authorities: Some(PathBuf::from(AUTHORITIES)),
    }
}

/// `bwrap` with its options, up to the command.
pub(super) fn line(
    program: &Path,
    permit: Permit,
    room: &Room,
    host: &HostEnvironment,
    semel: &Path,
) -> Vec<OsString> {
    let inside = inside();
    let mut line = Line::of(program);
    line.words(&APART);
    line.words(&["--uid", USER, "--gid", USER]);
    if !permit.network {
        line.words(&["--unshare-net"]);
    }
    for dir in view::system() {
        line.system(&dir);
    }
    for path in view::etc(permit.network) {
        line.bind("--ro-bind", &path, &path);
    }
    for name in ["passwd", "group"] {
        line.bind("--ro-bind", &room.etc.join(name), &Path::new("/etc").join(name));
    }
    if !permit.network {
        line.bind("--ro-bind", &room.etc.join("hosts"), Path::new("/etc/hosts"));
    }
    line.words(&["--proc", "/proc", "--dev", "/dev"]);
    let processors = Path::new("/sys/devices/system/cpu");
    line.bind("--ro-bind-try", processors, processors);
    line.bind("--bind", &room.tmp, &inside.tmp);
    line.words(&["--dir", "/var", "--symlink", "../tmp", "/var/tmp"]);
    // After the temporary directory, below which one of them may lie.
    for dir in &host.toolchains {
        line.bind("--ro-bind", dir, dir);
    }
    if permit.network {
        for (number, path) in host.way_out.authorities().iter().enumerate() {
            line.bind("--ro-bind", path, &Path::new(AUTHORITIES).join(number.to_string()));
        }
    }
    line.bind("--bind", &room.home, &inside.home);
    line.bind("--bind", &room.tree, &inside.tree);
    line.bind("--ro-bind", semel, &inside.semel);
    line.words(&["--remount-ro", "/", "--chdir"]);
    line.0.extend([inside.tree.into_os_string(), "--".into()]);
    line.0
}

/// A command line of `bwrap` that is being put together.
pub(super) struct Line(pub(super) Vec<OsString>);

impl Line {
    pub(super) fn of(program: &Path) -> Self {
        Self(vec![program.as_os_str().to_owned()])
    }

    pub(super) fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    pub(super) fn bind(&mut self, option: &str, from: &Path, to: &Path) {
        self.0.extend([option.into(), from.as_os_str().to_owned(), to.as_os_str().to_owned()]);
    }

    /// Where `/bin` is a link into `/usr`, it is one inside.
    pub(super) fn system(&mut self, dir: &Path) {
        match dir.read_link() {
            Ok(target) => self.bind("--symlink", &target, dir),
            Err(_) => self.bind("--ro-bind", dir, dir),
        }
    }
}

/// Writes the files that stand in for the host's: one user, who owns the build, and no network to look up.
pub(super) fn write_etc(dir: &Path) -> io::Result<()> {
    let files = [
        (
            "passwd",
            "root:x:0:0::/:/bin/false\nbuild:x:1000:1000::/builder:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        ),
        ("group", "root:x:0:\nbuild:x:1000:\nnogroup:x:65534:\n"),
        ("hosts", "127.0.0.1 localhost build\n::1 localhost build\n"),
    ];
    for (name, text) in files {
        #[expect(clippy::disallowed_methods, reason = "a file of the work directory need not last")]
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}
