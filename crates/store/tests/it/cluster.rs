//! A PostgreSQL server of one's own for a test program: no port, no durability, gone when the program is.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Starts a server in a directory of its own, says where, and removes both when its standard input ends: that is when the
/// test program ends, in whichever way. `$2` is the directory for temporary files; the name of a socket must be short. The language of its databases is one whose order of names is not that of bytes.
const GUARD: &str = r#"
dir=$(mktemp -d "$2/semel-pg-XXXXXX")
"$1"/initdb -D "$dir/data" -A trust -U postgres --no-sync -E UTF8 --locale=C --locale-provider=icu --icu-locale=en-US >"$dir/log" 2>&1 &&
"$1"/pg_ctl -D "$dir/data" -l "$dir/log" -w start >>"$dir/log" 2>&1 \
    -o "-k $dir -c listen_addresses= -c fsync=off -c shared_buffers=32MB -c max_connections=300" &&
echo "$dir" || { cat "$dir/log" >&2; echo; }
read -r _
"$1"/pg_ctl -D "$dir/data" -m immediate -w stop >>"$dir/log" 2>&1
rm -rf "$dir"
"#;

/// A running server.
#[derive(Debug)]
pub(crate) struct Cluster {
    programs: PathBuf,
    /// Where its socket is.
    dir: PathBuf,
    /// Its standard input is open as long as this program runs.
    _guard: Child,
}

impl Cluster {
    /// The server of this test program, started when it is first asked for. None where PostgreSQL is not installed, which is
    /// said, and fails with `CI=true`.
    pub(crate) fn get() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Cluster>> = OnceLock::new();
        SERVER.get_or_init(|| programs().map(Self::start)).as_ref()
    }

    fn start(programs: PathBuf) -> Self {
        let mut command = Command::new("env");
        if rustix::process::getuid().is_root() {
            // PostgreSQL refuses to run as root.
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "env"]);
        }
        command.args(["sh", "-c", GUARD, "guard"]).arg(&programs).arg(std::env::temp_dir()).current_dir("/");
        // Not in the group of the tests: an interrupt from the keyboard must not end it before it has cleaned up.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("setpriv and sh are there");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("the guard speaks");
        assert!(line.trim().starts_with('/'), "the PostgreSQL server did not start");
        Self { programs, dir: PathBuf::from(line.trim()), _guard: child }
    }

    /// How a database of this server is named.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.dir.display())
    }

    /// Creates an empty database.
    pub(crate) fn create(&self, database: &str) {
        self.run("createdb", &[database]);
    }

    /// Drops a database, whoever is connected to it.
    pub(crate) fn drop(&self, database: &str) {
        self.run("dropdb", &["--force", database]);
    }

    fn run(&self, program: &str, words: &[&str]) {
        let mut command = Command::new(self.programs.join(program));
        let ran = command.arg("--host").arg(&self.dir).args(["--username=postgres"]).args(words).output();
        let ran = ran.expect("the programs of PostgreSQL are there");
        assert!(ran.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

/// Where the programs of PostgreSQL are: on the path, or where Debian puts those of the newest version.
#[allow(clippy::print_stderr, clippy::disallowed_methods, reason = "a test that is left out says so")]
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    versions.sort();
    let here = |dir: &PathBuf| is_there(dir);
    let found = std::env::split_paths(&path).find(here).or_else(|| versions.into_iter().rev().find(here));
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "PostgreSQL is needed where CI=true");
        eprintln!("left out: PostgreSQL is not installed");
    }
    found
}

fn is_there(dir: &Path) -> bool {
    ["initdb", "pg_ctl", "createdb"].iter().all(|program| dir.join(program).is_file())
}
