//! A world of its own for one test: a directory, an environment without anything of the user's, a small project and the
//! built program. Whatever was started in it ends with it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

/// The component that [`TestEnvironment::project`] builds.
pub(crate) const COMPONENT: &str = "tiny/service";

/// The project of most tests: a script, so that a build takes no time.
const PROJECT: &str = r#"format = 1
component = "tiny/service"

[artefact]
kind = "archive"
entrypoint = ["/run.sh"]
files = [{ from = "run.sh", to = "/run.sh", mode = "0755" }]

[config]
PLACE = { type = "string" }
MOOD = { type = "string", default = "calm" }
TOKEN = { type = "string", secret = true, required = false }

[environment.dev]
values = "config/dev.toml"
target = { kind = "directory", health = ["sh", "-c", "exit 0"] }

[environment.staging]
after = "dev"
gates = [{ evidence = "junit" }]
values = "config/staging.toml"
target = { kind = "directory", health = ["sh", "-c", "exit 0"] }
"#;

const SCRIPT: &str = "#!/bin/sh\necho \"hello from $PLACE, $MOOD\"\nwhile :; do sleep 1; done\n";

/// A report with two tests that passed.
pub(crate) const JUNIT: &str = "<testsuite name=\"tiny\" tests=\"2\"><testcase classname=\"tiny\" name=\"it_greets\"/>\
     <testcase classname=\"tiny\" name=\"it_stays\"/></testsuite>\n";

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// −1: ended by a signal.
    pub(crate) code: i32,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The one value on standard output.
    pub(crate) fn value(&self) -> String {
        self.stdout.trim().to_owned()
    }

    /// What follows `@` in the reference on standard output.
    pub(crate) fn digest(&self) -> String {
        let value = self.value();
        value.split_once('@').unwrap_or_else(|| panic!("no reference: {self:?}")).1.to_owned()
    }
}

/// A directory and everything that happens in it.
pub(crate) struct TestEnvironment {
    dir: TempDir,
    database: Option<String>,
}

impl TestEnvironment {
    /// An empty one: no repository, no project, no store.
    pub(crate) fn empty() -> Self {
        // The name is short, because the path of a socket has a small limit.
        let dir = tempfile::Builder::new().prefix("sm").rand_bytes(6).tempdir().unwrap();
        fs::create_dir(dir.path().join("p")).unwrap();
        Self { dir, database: None }
    }

    /// An empty repository.
    pub(crate) fn repository() -> Self {
        let environment = Self::empty();
        environment.git(&["init", "--quiet", "--initial-branch=main"]);
        environment
    }

    /// A repository with the small project, committed.
    pub(crate) fn project() -> Self {
        let environment = Self::repository();
        environment.write("semel.toml", PROJECT);
        environment.write("run.sh", SCRIPT);
        environment.write("config/dev.toml", "PLACE = \"a laptop\"\n");
        environment.write("config/staging.toml", "PLACE = \"the rehearsal\"\n");
        environment.commit("feat: greet");
        environment
    }

    /// Where commands run: the project.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("p")
    }

    /// A path beside the project.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The user's own store.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("data/semel")
    }

    /// From now on every command finds the tables of the store in a PostgreSQL database.
    pub(crate) fn keep_tables_in(&mut self, database: String) {
        self.database = Some(database);
    }

    /// Writes a file of the project.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Makes the project's archive an image; its script is never run, so the shell may be missing.
    pub(crate) fn make_it_an_image(&self) {
        let ignored =
            "kind = \"image\"\nclosure = { ignore = [{ name = \"/bin/sh\", reason = \"never run\" }] }";
        self.edit("semel.toml", "kind = \"archive\"", ignored);
    }

    /// Replaces words in a file of the project.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir().join(name)).unwrap();
        assert!(text.contains(from), "{name} does not contain {from}");
        self.write(name, &text.replace(from, to));
    }

    /// Commits everything that lies there; the commit's name depends on nothing else.
    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
    }

    /// Builds a commit of a branch of its own, `feat/mood`, and goes back to the main line.
    pub(crate) fn build_branch(&self) -> serde_json::Value {
        self.git(&["switch", "--quiet", "--create", "feat/mood"]);
        self.edit("run.sh", "hello", "good day");
        self.commit("feat: be polite");
        let built = self.ok(&["--json", "build"]).json();
        self.git(&["switch", "--quiet", "main"]);
        built
    }

    /// Runs git, which must succeed, and gives what it printed.
    pub(crate) fn git(&self, words: &[&str]) -> String {
        let mut command = self.program("git");
        command.args(words);
        let ran = finish(command, "");
        assert_eq!(ran.code, 0, "git {words:?}: {}", ran.stderr);
        ran.value()
    }

    /// Runs the program.
    pub(crate) fn semel(&self, words: &[&str]) -> Ran {
        finish(self.command(words), "")
    }

    /// Runs the program with something on its standard input.
    pub(crate) fn piped(&self, words: &[&str], input: &str) -> Ran {
        finish(self.command(words), input)
    }

    /// Runs the program, which must succeed.
    pub(crate) fn ok(&self, words: &[&str]) -> Ran {
        let ran = self.semel(words);
        assert_eq!(ran.code, 0, "semel {words:?}: {}{}", ran.stdout, ran.stderr);
        ran
    }

    /// Builds and gives the digest.
    pub(crate) fn build(&self) -> String {
        self.ok(&["build"]).digest()
    }

    /// Attaches a passed JUnit report.
    pub(crate) fn attest(&self, version: &str) {
        self.write("../results.xml", JUNIT);
        self.ok(&["attest", version, "--type", "junit", "../results.xml"]);
    }

    /// The program, to be run here.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_semel"));
        command.args(words);
        command
    }

    /// Any program, to be run here: it sees nothing of the user's but the `PATH`.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let home = self.dir.path();
        let mut command = Command::new(program);
        command.current_dir(self.dir()).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let variables = [
            ("SEMEL_ACTOR", "tester"),
            ("GIT_AUTHOR_NAME", "Tester"),
            ("GIT_AUTHOR_EMAIL", "tester@example.org"),
            ("GIT_AUTHOR_DATE", "2026-11-22T12:00:00Z"),
            ("GIT_COMMITTER_NAME", "Tester"),
            ("GIT_COMMITTER_EMAIL", "tester@example.org"),
            ("GIT_COMMITTER_DATE", "2026-11-22T12:00:00Z"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
        ];
        command.envs(variables).env("HOME", home);
        command.envs(self.database.iter().map(|database| ("SEMEL_DATABASE", database)));
        for (name, below) in [
            ("XDG_DATA_HOME", "data"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "runtime"),
        ] {
            command.env(name, home.join(below));
        }
        command
    }

    /// Starts a server on a free port. It logs what changes the store.
    pub(crate) fn serve(&self) -> Serving {
        self.serve_logging("info")
    }

    /// Starts a server on a free port with a log of this level; `debug` shows every request.
    pub(crate) fn serve_logging(&self, level: &str) -> Serving {
        self.start(self.command(&SERVE), level)
    }

    /// Starts a server that may have so many files open.
    pub(crate) fn serve_with_files(&self, files: u32) -> Serving {
        let mut command = self.program("sh");
        let limited = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_semel")]).args(SERVE);
        self.start(command, "info")
    }

    fn start(&self, mut command: Command, level: &str) -> Serving {
        let log = self.beside("serve.log");
        command.env("SEMEL_LOG", level).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("the server printed {line}"));
        Serving { address: address.to_owned(), log, child, _stdout: stdout }
    }

    /// Every file of a directory beside the project, with its bytes.
    pub(crate) fn bytes_below(&self, dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let Ok(listing) = fs::read_dir(dir) else { return found };
        for entry in listing.map(|entry| entry.unwrap()) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.extend(self.bytes_below(&entry.path()));
            } else if kind.is_file() {
                found.push((entry.path(), fs::read(entry.path()).unwrap()));
            }
        }
        found.sort();
        found
    }
}

impl Drop for TestEnvironment {
    fn drop(&mut self) {
        let runs = self.dir.path().join("state/semel/run");
        if !runs.exists() {
            return;
        }
        if Path::new("/proc/self").exists() {
            processes::end_below(self.dir.path());
            return;
        }
        for environment in ["dev", "staging", "production"] {
            // What never ran cannot be stopped.
            drop(self.semel(&["stop", environment, "-c", COMPONENT]));
        }
    }
}

/// A server that ends with the test.
pub(crate) struct Serving {
    /// Host and port.
    pub(crate) address: String,
    log: PathBuf,
    child: Child,
    /// Kept open, so that the server can go on printing.
    _stdout: BufReader<ChildStdout>,
}

impl Serving {
    /// What the server logged up to now.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end of the server, and gives its exit code; −1: ended by a signal.
    pub(crate) fn ended(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command, input: &str) -> Ran {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is no failure.
        drop(stdin.write_all(input.as_bytes()));
    }
    Ran::of(&child.wait_with_output().unwrap())
}

/// Takes a file away from everybody but its owner.
pub(crate) fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A listener that takes a port for as long as it lives.
pub(crate) fn taken_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A script for a shell that runs its arguments at another time, such as `+60s` from now. Whoever was killed below libfaketime
/// left shared memory behind, named by the number of its process, which may be this one's by now.
pub(crate) fn at_another_time(offset: &str) -> String {
    format!("rm -f /dev/shm/*faketime_s*_$$; exec faketime -f '{offset}' \"$@\"")
}

/// Whether a program is there. A CI run must have it; elsewhere its absence is said and the test is left out.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    met(found, &format!("{program} is not installed"))
}

/// Whether all programs are there.
pub(crate) fn has_all(programs: &[&str]) -> bool {
    programs.iter().all(|program| has(program))
}

/// The words that start a server on a free port.
const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

/// Whether a need of a test is met. In a CI run it must be; elsewhere what is lacking is said and the test is left out.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn met(need: bool, lacking: &str) -> bool {
    if !need {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "where CI=true: {lacking}");
        eprintln!("left out: {lacking}");
    }
    need
}

/// Lets this process, and those that it starts, open more files than a shell does: a thousand connections are as many.
pub(crate) fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// Processes that lead into a directory.
mod processes {
    use std::fs;
    use std::path::Path;

    use rustix::process::{Pid, Signal, kill_process};

    /// Ends every process whose arguments or working directory lie below a directory.
    pub(super) fn end_below(dir: &Path) {
        // A supervisor could start its child again between two looks: look until nothing is left.
        for _ in 0..20 {
            let found = below(dir);
            if found.is_empty() {
                return;
            }
            for pid in found {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    fn below(dir: &Path) -> Vec<Pid> {
        let Ok(listing) = fs::read_dir("/proc") else { return Vec::new() };
        listing
            .flatten()
            .filter_map(|entry| {
                let number: i32 = entry.file_name().to_str()?.parse().ok()?;
                leads_into(&entry.path(), dir).then(|| Pid::from_raw(number)).flatten()
            })
            .collect()
    }

    fn leads_into(process: &Path, dir: &Path) -> bool {
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let named = String::from_utf8_lossy(&arguments).contains(&*dir.to_string_lossy());
        named || fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
