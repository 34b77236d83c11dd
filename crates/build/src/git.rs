//! The `git` program: the only file that runs it.
//!
//! Every call is independent of who runs it and from where: no terminal, no locks, no hooks, no file system monitor,
//! the C locale, none of git's own environment variables, no grafts and no replaced objects, and a repository of another
//! owner is read all the same (nothing in it is executed). Nothing is written either, except that a clone without its
//! history is completed where that is asked for.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// Why git did not answer.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program is not there.
    #[error("cannot start `git`; Semel reads commits with it")]
    Start {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{command}` failed ({status}): {said}")]
    Failed {
        /// The command as it can be repeated by hand.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last line that it wrote to standard error.
        said: String,
    },
    /// Its output broke off.
    #[error("cannot read what `{command}` answers")]
    Read {
        /// The command as it can be repeated by hand.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("`{command}` was not done after {seconds} s")]
    TooSlow {
        /// The command as it can be repeated by hand.
        command: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It said something else than its documentation says.
    #[error("`{command}` answered something unexpected: {what}")]
    Malformed {
        /// The command as it can be repeated by hand.
        command: String,
        /// What was not understood.
        what: String,
    },
}

/// Git in one directory.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    dir: PathBuf,
    /// What is put before every command, beside [`ALWAYS`].
    words: Vec<String>,
    /// Whether the settings of the host and its user count.
    host_settings: bool,
}

/// How a call ended.
pub(crate) struct Answer {
    /// Everything on standard output.
    pub(crate) bytes: Vec<u8>,
    /// The error, had the exit code been asked for.
    pub(crate) failure: Option<GitError>,
}

/// A call that is under way. Dropped, it is ended.
pub(crate) struct Running {
    child: Option<Child>,
    command: String,
}

/// Objects, asked for one after the other in one process.
pub(crate) struct Objects {
    running: Running,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The head of an object; its bytes follow.
pub(crate) struct Object {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) size: u64,
}

/// What is put before every command.
const ALWAYS: [&str; 12] = [
    "-c",
    "safe.directory=*",
    "-c",
    "core.quotePath=false",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "log.showSignature=false",
    "-c",
    "advice.statusHints=false",
];

/// Variables by which git is told to look elsewhere than where it stands (`git rev-parse --local-env-vars`, and what hooks
/// are given beside these), or to make repositories of another kind.
const MISLEADING: [&str; 17] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_DEFAULT_HASH",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// The version of the program, as it says it.
pub fn version() -> Result<String, GitError> {
    let said = Git::bare_of_settings(Path::new("/")).run(&["--version"])?;
    let said = String::from_utf8_lossy(&said);
    Ok(said.trim().trim_start_matches("git version ").to_owned())
}

/// Whether the repository in which a file lies tracks it. Without git nothing is tracked; what cannot be told counts as tracked.
pub fn is_tracked(file: &Path) -> bool {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else { return true };
    let words = ["ls-files".as_ref(), "--error-unmatch".as_ref(), "--".as_ref(), name];
    match Git::at(dir).run::<&OsStr>(&words) {
        Err(GitError::Failed { .. }) => false,
        Err(GitError::Start { source }) => source.kind() != io::ErrorKind::NotFound,
        _ => true,
    }
}

impl Git {
    /// Git in a directory of a working tree, or below one.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), words: Vec::new(), host_settings: true }
    }

    /// Git with a repository's own directory, wherever its working tree is.
    pub(crate) fn of(git_dir: &Path) -> Self {
        // Its settings may name a working tree that is not there; none is needed.
        Self { words: vec!["--git-dir=.".to_owned(), "--work-tree=.".to_owned()], ..Self::at(git_dir) }
    }

    /// Git in a directory of ours, without what the host and its user set.
    pub(crate) fn bare_of_settings(dir: &Path) -> Self {
        Self { host_settings: false, ..Self::at(dir) }
    }

    /// Where it is started.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the repository has a commit with its tree. A partial clone may have to fetch them.
    pub(crate) fn has_commit(&self, commit: &str) -> bool {
        self.run(&["cat-file", "-e", &format!("{commit}^{{tree}}")]).is_ok()
    }

    /// Runs a command to its end that reads `input`.
    pub(crate) fn feed(&self, words: &[&str], input: Vec<u8>) -> Result<Vec<u8>, GitError> {
        let mut running = self.spawn(words, Stdio::piped())?;
        let mut stdin = running.child.as_mut().and_then(|child| child.stdin.take()).expect("it is a pipe");
        // Question and answer are in flight together, or both pipes would fill up. What was not read shows in the answer.
        std::thread::spawn(move || stdin.write_all(&input));
        running.finish()
    }

    /// Runs a command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Vec<u8>, GitError> {
        self.start(words)?.finish()
    }

    /// Starts a command; what it says is taken later.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Running, GitError> {
        self.spawn(words, Stdio::null())
    }

    /// Starts a process that hands out objects, one question after the other.
    pub(crate) fn objects(&self) -> Result<Objects, GitError> {
        self.hand_out(&["cat-file", "--batch"])
    }

    /// Starts a process that hands out these objects, in this order.
    pub(crate) fn stream(&self, names: Vec<String>) -> Result<Objects, GitError> {
        let mut objects = self.hand_out(&["cat-file", "--batch", "--buffer"])?;
        let mut ask = objects.ask.take().expect("standard input is a pipe");
        // Names and contents are in flight together, or both pipes would fill up. A write that fails shows on the
        // reading side as an answer that is missing.
        std::thread::spawn(move || names.iter().try_for_each(|name| writeln!(ask, "{name}")));
        Ok(objects)
    }

    fn hand_out(&self, words: &[&str]) -> Result<Objects, GitError> {
        let mut running = self.spawn(words, Stdio::piped())?;
        let child = running.child.as_mut().expect("it was started just now");
        let ask = child.stdin.take();
        let answers =
            BufReader::with_capacity(64 * 1024, child.stdout.take().expect("standard output is a pipe"));
        Ok(Objects { running, ask, answers })
    }

    /// Runs a command to its end, but not longer than this; then it is ended, with everything that it has started.
    pub(crate) fn run_within<S: AsRef<OsStr>>(
        &self,
        words: &[S],
        limit: Duration,
    ) -> Result<Vec<u8>, GitError> {
        let mut command = self.command(words, Stdio::null());
        let child = command.process_group(0).spawn().map_err(|source| GitError::Start { source })?;
        let (group, running) =
            (Pid::from_child(&child), Running { child: Some(child), command: told(words) });
        let command = running.command.clone();
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || done.send(running.finish()));
        ended.recv_timeout(limit).unwrap_or_else(|_| {
            // Where it has ended just now, there is nothing left to end.
            let _ = kill_process_group(group, Signal::KILL);
            Err(GitError::TooSlow { command, seconds: limit.as_secs() })
        })
    }

    fn spawn<S: AsRef<OsStr>>(&self, words: &[S], stdin: Stdio) -> Result<Running, GitError> {
        let child = self.command(words, stdin).spawn().map_err(|source| GitError::Start { source })?;
        Ok(Running { child: Some(child), command: told(words) })
    }

    fn command<S: AsRef<OsStr>>(&self, words: &[S], stdin: Stdio) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.dir).args(ALWAYS).args(&self.words).args(words);
        for name in MISLEADING {
            command.env_remove(name);
        }
        if !self.host_settings {
            command.envs([
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_CONFIG_SYSTEM", "/dev/null"),
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_ATTR_NOSYSTEM", "1"),
                ("XDG_CONFIG_HOME", "/dev/null"),
                ("HOME", "/dev/null"),
            ]);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_GRAFT_FILE", "/dev/null")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// A command as it can be repeated by hand.
fn told<S: AsRef<OsStr>>(words: &[S]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    format!("git {}", words.join(" "))
}

impl Running {
    /// Waits for the end; a failure is an error.
    pub(crate) fn finish(self) -> Result<Vec<u8>, GitError> {
        let answer = self.answer()?;
        answer.failure.map_or(Ok(answer.bytes), Err)
    }

    /// Waits for the end; a failure is part of the answer.
    pub(crate) fn answer(mut self) -> Result<Answer, GitError> {
        let child = self.child.take().expect("it is taken only here");
        let output = child.wait_with_output().map_err(|source| self.unread(source))?;
        let failure = (!output.status.success()).then(|| self.failure(output.status, &output.stderr));
        Ok(Answer { bytes: output.stdout, failure })
    }

    fn unread(&self, source: io::Error) -> GitError {
        GitError::Read { command: self.command.clone(), source }
    }

    pub(crate) fn malformed(&self, what: impl Into<String>) -> GitError {
        GitError::Malformed { command: self.command.clone(), what: what.into() }
    }

    fn failure(&self, status: ExitStatus, stderr: &[u8]) -> GitError {
        let text = String::from_utf8_lossy(stderr);
        let told = |line: &&str| line.starts_with("fatal:") || line.starts_with("error:");
        let said = text.lines().find(told).or_else(|| text.lines().last()).unwrap_or("it said nothing");
        GitError::Failed { command: self.command.clone(), status, said: said.to_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already; either way it is reaped here.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Objects {
    /// Asks for one object and reads it whole; `None`: there is no such object.
    pub(crate) fn whole(&mut self, name: &str) -> Result<Option<(Object, Vec<u8>)>, GitError> {
        self.whole_bytes(name.as_bytes())
    }

    /// The same, for a name with a path that is no text. A name with a line break cannot be asked for.
    pub(crate) fn whole_bytes(&mut self, name: &[u8]) -> Result<Option<(Object, Vec<u8>)>, GitError> {
        if name.contains(&b'\n') || name.contains(&0) {
            return Ok(None);
        }
        let ask = self.ask.as_mut().expect("it is only taken for a stream");
        let asked = ask.write_all(&[name, b"\n"].concat()).and_then(|()| ask.flush());
        asked.map_err(|source| self.unread(source))?;
        let Some(object) = self.next_head()? else { return Ok(None) };
        let mut bytes = Vec::new();
        self.content(&object, &mut bytes)?.map_err(|source| self.unread(source))?;
        Ok(Some((object, bytes)))
    }

    /// The head of the next answer; `None`: there is no such object. Its content must be taken before the next one.
    pub(crate) fn next_head(&mut self) -> Result<Option<Object>, GitError> {
        let mut line = Vec::new();
        self.answers.read_until(b'\n', &mut line).map_err(|source| self.unread(source))?;
        if line.pop() != Some(b'\n') {
            return Err(self.broken_off());
        }
        if line.ends_with(b" missing") || line.ends_with(b" ambiguous") {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split(' ');
        let (Some(id), Some(kind), Some(Ok(size)), None) =
            (words.next(), words.next(), words.next().map(str::parse), words.next())
        else {
            return Err(self.running.malformed(line));
        };
        Ok(Some(Object { id: id.to_owned(), kind: kind.to_owned(), size }))
    }

    /// Copies the content of an object. The inner error is the writer's.
    pub(crate) fn content(
        &mut self,
        object: &Object,
        to: &mut impl Write,
    ) -> Result<io::Result<()>, GitError> {
        let mut left = object.size;
        let mut written = Ok(());
        while left > 0 {
            let piece = self.answers.fill_buf().map_err(|source| self.running.unread(source))?;
            if piece.is_empty() {
                return Err(self.broken_off());
            }
            let some = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            written = written.and_then(|()| to.write_all(&piece[..some]));
            self.answers.consume(some);
            left -= some as u64;
        }
        let mut end = [0];
        self.answers.read_exact(&mut end).map_err(|source| self.unread(source))?;
        Ok(written)
    }

    /// Standard output ended too early; what git said about it is on standard error.
    fn broken_off(&mut self) -> GitError {
        self.ask = None;
        let output = self.running.child.take().and_then(|child| child.wait_with_output().ok());
        match output {
            Some(output) if !output.status.success() => self.running.failure(output.status, &output.stderr),
            _ => self.unread(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn unread(&self, source: io::Error) -> GitError {
        self.running.unread(source)
    }
}
