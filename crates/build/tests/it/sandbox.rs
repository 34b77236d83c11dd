//! What a command can reach, at every level that this host has.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use semel_build::log::Secret;
use semel_build::pipeline::{self, BuildError, BuildRequest};
use semel_build::recipe::RunError;
use semel_build::sandbox::{HostEnvironment, Level};
use tempfile::TempDir;

use crate::support::{
    Done, Recorder, Repo, finish, isolating_levels, path, processes, request, runtime, sandbox,
};

/// Tries to reach what its arguments name, and says of each whether that was refused. That something arrived is seen
/// by whoever listens.
const PROBE: &str = r#"
import ctypes, os, socket, sys
tcp, udp, unix, abstract, pid, secret, outside = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)

def ptrace():
    if libc.ptrace(16, int(pid), None, None) != 0:
        raise OSError(ctypes.get_errno())

def connect(family, address):
    def connecting():
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.settimeout(20)
            one.connect(address)
    return connecting

def write(where):
    with open(where, "w") as file:
        file.write("x")

attempts = {
    "tcp": connect(socket.AF_INET, ("127.0.0.1", int(tcp))),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", int(udp))),
    "dns": lambda: socket.getaddrinfo("example.org", 80),
    "unix": connect(socket.AF_UNIX, unix),
    "abstract": connect(socket.AF_UNIX, "\0" + abstract),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "signal": lambda: os.kill(int(pid), 0),
    "ptrace": ptrace,
    "arguments": lambda: open(f"/proc/{pid}/cmdline").read(),
    "environment": lambda: open(f"/proc/{pid}/environ").read(),
    "memory": lambda: open(f"/proc/{pid}/maps").read(),
    "home": lambda: open(secret).read(),
    "listing": lambda: os.listdir(os.path.dirname(secret)),
    "outside": lambda: write(outside),
    "usr": lambda: write("/usr/semel-was-here"),
    "keys": lambda: open("/etc/shadow").read(),
    "keyring": lambda: 0 if libc.syscall(250, 0, -3, 0) >= 0 else (_ for _ in ()).throw(OSError()),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(name, "REACHED")
    except OSError:
        print(name, "refused")
"#;

/// A host with things that a command should not find.
struct Outside {
    dir: TempDir,
    tcp: TcpListener,
    udp: UdpSocket,
    _unix: UnixListener,
    unix: UnixListener,
    process: Child,
}

const SECRET: &str = "hunter2-of-the-host";

impl Outside {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join(".ssh")).unwrap();
        fs::write(dir.path().join(".ssh/id"), SECRET).unwrap();
        let abstract_name = SocketAddr::from_abstract_name(Self::abstract_name(&dir)).unwrap();
        let process =
            Command::new("sleep").arg("3600").env("TOKEN", SECRET).stdin(Stdio::null()).spawn().unwrap();
        let this = Self {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            _unix: UnixListener::bind(dir.path().join("socket")).unwrap(),
            unix: UnixListener::bind_addr(&abstract_name).unwrap(),
            process,
            dir,
        };
        this.tcp.set_nonblocking(true).unwrap();
        this.udp.set_nonblocking(true).unwrap();
        this.unix.set_nonblocking(true).unwrap();
        this
    }

    fn abstract_name(dir: &TempDir) -> String {
        dir.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    /// The command that tries to reach all of it.
    fn probe(&self) -> String {
        let at = |name: &str| self.dir.path().join(name).to_string_lossy().into_owned();
        let words = [
            self.tcp.local_addr().unwrap().port().to_string(),
            self.udp.local_addr().unwrap().port().to_string(),
            at("socket"),
            Self::abstract_name(&self.dir),
            self.process.id().to_string(),
            at(".ssh/id"),
            at("written"),
        ];
        format!("/usr/bin/python3 probe.py {} && touch out", words.join(" "))
    }

    /// The caller's variables: his home is here.
    fn host(&self) -> HostEnvironment {
        let home = self.dir.path().to_string_lossy().into_owned();
        HostEnvironment::of(&BTreeMap::from([("PATH".to_owned(), path()), ("HOME".to_owned(), home)]))
    }

    /// What arrived here.
    fn reached(&self) -> Vec<&'static str> {
        let mut reached = Vec::new();
        reached.extend(self.tcp.accept().is_ok().then_some("tcp"));
        reached.extend(self.udp.recv(&mut [0; 8]).is_ok().then_some("udp"));
        reached.extend(self.unix.accept().is_ok().then_some("abstract"));
        reached.extend(self.dir.path().join("written").exists().then_some("outside"));
        reached
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn project(build: &str) -> Repo {
    let text = format!(
        "format = 1\ncomponent = \"shop/api\"\n[build]\n{build}\n[artefact]\nkind = \"archive\"\nfiles = [{{ from = \"out\", to = \"/out\" }}]\n"
    );
    Repo::with(&text, &[("probe.py", PROBE)]).committed()
}

/// A build of this project at a level.
fn build(repo: &Repo, level: Level, change: impl FnOnce(&mut BuildRequest)) -> Result<Done, BuildError> {
    let work = TempDir::new().unwrap();
    let mut request = request(repo.source(), work.path().to_owned());
    request.sandbox = sandbox(Some(level));
    change(&mut request);
    finish(request, work)
}

fn built(build_table: &str, level: Level) -> Done {
    build(&project(build_table), level, |_| {}).unwrap_or_else(|error| panic!("{level}: {error:?}"))
}

/// What a command printed, without the line that names it.
fn printed(done: &Done) -> Vec<&str> {
    done.lines.iter().filter(|line| !line.starts_with("== ")).map(String::as_str).collect()
}

/// What the provenance says of how it was built.
fn parameters(done: &Done) -> &serde_json::Value {
    &done.built.claims[0].predicate["buildDefinition"]["internalParameters"]
}

fn has_python() -> bool {
    let there = Path::new("/usr/bin/python3").exists();
    assert!(there || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "where CI=true: /usr/bin/python3");
    there
}

#[test]
fn run_reaches_no_network_no_process_no_home_and_nothing_outside() {
    for level in isolating_levels().into_iter().filter(|_| has_python()) {
        let outside = Outside::new();
        let repo = project(&format!("run = \"{}\"", outside.probe()));
        let done = build(&repo, level, |request| request.host = outside.host());
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        let mut reached: Vec<&str> =
            printed(&done).into_iter().filter(|line| !line.ends_with(" refused")).collect();
        if level == Level::Bubblewrap {
            // It has a loopback interface and processes of its own. Nothing arrives from there.
            reached.retain(|line| *line != "udp REACHED");
        }
        assert_eq!(reached, [""; 0], "{level}: {:?}", done.lines);
        assert_eq!(printed(&done).len(), 17, "{level}");
        assert_eq!(outside.reached(), [""; 0], "{level}");
    }
}

#[test]
fn fetch_reaches_the_network_and_neither_home_nor_processes() {
    for level in isolating_levels().into_iter().filter(|_| has_python()) {
        let outside = Outside::new();
        let repo = project(&format!("fetch = \"{}\"", outside.probe()));
        let done = build(&repo, level, |request| request.host = outside.host());
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        let tried = printed(&done);
        for refused in ["signal", "ptrace", "arguments", "environment", "memory", "home", "outside", "keys"] {
            assert!(tried.contains(&&*format!("{refused} refused")), "{level}: {tried:?}");
        }
        let reached = outside.reached();
        assert!(
            reached.starts_with(&["tcp", "udp"]) && !reached.contains(&"outside"),
            "{level}: {reached:?}"
        );
    }
}

#[test]
fn run_gets_the_network_only_where_the_project_says_so_and_that_is_recorded() {
    for level in isolating_levels().into_iter().filter(|_| has_python()) {
        let outside = Outside::new();
        let done = built(&format!("network = true\nrun = \"{}\"", outside.probe()), level);
        assert!(outside.reached().starts_with(&["tcp", "udp"]), "{level}");
        let said = &parameters(&done)["sandbox"];
        assert_eq!((&said["level"], &said["network"]), (&level.as_str().into(), &true.into()));
    }
}

#[test]
fn a_secret_is_seen_by_fetch_alone_and_only_its_name_is_recorded() {
    const VALUE: &str = "correct-horse-battery";
    let table = "fetch = \"test ${#TOKEN} = 21 && echo got > fetched && echo $TOKEN\"\n\
                 run = \"cat fetched; echo ${TOKEN-none}; env; cp fetched out\"\nsecrets = [\"TOKEN\"]";
    let secrets = vec![Secret::new("TOKEN", VALUE).unwrap()];
    for level in [Level::None, Level::Landlock, Level::Bubblewrap] {
        if level != Level::None && !isolating_levels().contains(&level) {
            continue;
        }
        let done = build(&project(table), level, |request| request.secrets = secrets.clone());
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        assert_eq!(printed(&done)[..3], ["[secret TOKEN]", "got", "none"], "{level}: {:?}", done.lines);
        assert!(done.lines.iter().all(|line| !line.contains(VALUE)), "{level}: {:?}", done.lines);
        assert!(!done.built.claims.iter().any(|claim| claim.predicate.to_string().contains(VALUE)));
        assert_eq!(parameters(&done)["secrets"], serde_json::json!(["TOKEN"]));
    }
}

/// A caller behind a proxy with a password, whose authorities lie in his home, beside what is nobody's business.
struct Company {
    home: TempDir,
}

impl Company {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        fs::create_dir(home.path().join("authorities")).unwrap();
        fs::write(home.path().join("authorities/one.pem"), "one").unwrap();
        fs::write(home.path().join("company.pem"), "company").unwrap();
        fs::write(home.path().join("private"), SECRET).unwrap();
        Self { home }
    }

    fn at(&self, name: &str) -> String {
        self.home.path().join(name).canonicalize().unwrap().to_string_lossy().into_owned()
    }

    fn host(&self) -> HostEnvironment {
        let variables = [
            ("PATH", path()),
            ("HOME", self.at("")),
            ("HTTPS_PROXY", "http://ada:hunter%2B2@proxy.example:3128".to_owned()),
            ("no_proxy", "localhost".to_owned()),
            ("NODE_EXTRA_CA_CERTS", "/no/such.pem".to_owned()),
            ("SSL_CERT_DIR", format!("/etc/ssl/certs:{}", self.at("authorities"))),
            ("SSL_CERT_FILE", self.at("company.pem")),
            ("GIT_SSL_NO_VERIFY", "1".to_owned()),
        ];
        HostEnvironment::of(&variables.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// A command that says which of the variables it sees, and what it can read of the caller's home: where they say, or
    /// where it lies.
    fn look(&self) -> String {
        let read = |path: &str| format!("cat {path} 2>/dev/null || echo -n closed; echo");
        let commands = [
            "env | grep -E '_PROXY|_proxy|_CERT|_SSL' | cut -d= -f1 | sort | xargs".to_owned(),
            format!(
                "dirs=${{SSL_CERT_DIR-{}}}; file=${{SSL_CERT_FILE-{}}}",
                self.at("authorities"),
                self.at("company.pem")
            ),
            read("${dirs##*:}/one.pem"),
            read("$file"),
            read(&self.at("private")),
            "echo $file".to_owned(),
        ];
        commands.join("; ")
    }
}

#[test]
fn commands_with_network_have_the_callers_way_out_and_the_authorities_that_it_names() {
    let company = Company::new();
    let look = company.look();
    let names = "HTTPS_PROXY NODE_EXTRA_CA_CERTS SSL_CERT_DIR SSL_CERT_FILE no_proxy";
    let here = company.at("company.pem");
    for level in isolating_levels() {
        let place = if level == Level::Bubblewrap { "/authorities/1" } else { &here };
        let online = [names, "one", "company", "closed", place];
        let offline = ["", "closed", "closed", "closed", &here];
        for (network, in_run) in [(false, offline), (true, online)] {
            let table = format!("network = {network}\nfetch = \"{look}\"\nrun = \"{look}; touch out\"");
            let done = build(&project(&table), level, |request| request.host = company.host());
            let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
            assert_eq!(printed(&done), [online, in_run].concat(), "{level}, network = {network}");
        }
    }
}

#[test]
fn a_proxys_password_is_in_no_log_and_the_way_out_in_no_key() {
    let company = Company::new();
    let table = "fetch = \"echo ${HTTPS_PROXY-none}; echo hunter+2; printf %s ada:hunter+2 | base64; echo ${no_proxy-none}\"\n\
                 run = \"echo ${HTTPS_PROXY-none}; touch out\"\nenv = { NO_PROXY = \"own\" }";
    for level in all_levels() {
        let done = build(&project(table), level, |request| request.host = company.host());
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        let hidden = "[secret HTTPS_PROXY]";
        assert_eq!(printed(&done), [hidden, hidden, hidden, "none", "none"], "{level}");
        let seen = &parameters(&done)["variables"];
        let seen: Vec<&str> = seen.as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
        assert!(seen.contains(&"HTTPS_PROXY") && !seen.contains(&"no_proxy"), "{seen:?}");
        let claims: Vec<String> = done.built.claims.iter().map(|claim| claim.predicate.to_string()).collect();
        assert!(!claims.iter().any(|claim| claim.contains("proxy.example")), "{claims:?}");
        let without = built(table, level);
        assert_eq!(parameters(&done)["buildKey"], parameters(&without)["buildKey"]);
    }
}

#[test]
fn a_path_in_the_output_says_nothing_about_the_host() {
    if !isolating_levels().contains(&Level::Bubblewrap) {
        return;
    }
    let done =
        built("run = \"pwd; echo $HOME $TMPDIR $SEMEL; hostname; id -un; touch out\"", Level::Bubblewrap);
    assert_eq!(printed(&done), ["/build", "/builder /tmp /semel", "build", "build"]);
}

#[test]
fn everything_that_a_command_needs_is_there() {
    let table = "run = '''
        echo x > /dev/null; echo y > \"$TMPDIR/file\"; mkdir -p \"$HOME/.config\"; echo z > \"$HOME/.config/file\"
        mkfifo pipe; ln -s out link; mkdir dir; mv dir other; ln out0 out1 2>/dev/null || true
        cat < /proc/meminfo > /dev/null; head -c 8 /dev/urandom > random; test -s random
        \"$SEMEL\" sandbox 2> /dev/null || echo the program is there
        (echo in a child; sh -c 'echo in its child') | cat > out
    '''";
    for level in isolating_levels() {
        let done = built(table, level);
        assert_eq!(done.lines.last().unwrap(), "the program is there", "{level}");
        let out = fs::read_to_string(done.work.path().join("tree/out")).unwrap();
        assert_eq!(out, "in a child\nin its child\n", "{level}");
    }
}

#[test]
fn a_command_has_a_temporary_directory_of_its_own_and_no_part_in_that_of_the_host() {
    let levels = isolating_levels();
    for level in &levels {
        let table = "run = 'echo x > \"$TMPDIR/file\"; test \"$(ls \"$TMPDIR\")\" = file; echo ${JAVA_TOOL_OPTIONS-none} > out'";
        let done = built(table, *level);
        let out = fs::read_to_string(done.work.path().join("tree/out")).unwrap();
        match level {
            Level::Landlock => {
                let tmp = done.work.path().join("tmp");
                assert_eq!(out, format!("-Djava.io.tmpdir=\"{}\"\n", tmp.display()));
            }
            _ => assert_eq!(out, "none\n"),
        }
        let name = mark(*level, 4);
        let built = build(&project(&format!("run = 'touch /tmp/{name} out'")), *level, |_| {});
        assert!(!Path::new("/tmp").join(&name).exists(), "{level}");
        match (level, built.err()) {
            (Level::Landlock, Some(BuildError::Run(error))) => {
                let hint = error.hint().unwrap();
                assert!(hint.contains("$TMPDIR") && hint.contains("bubblewrap"), "{hint}");
            }
            (Level::Bubblewrap, None) => {}
            (level, error) => panic!("{level}: {error:?}"),
        }
    }
}

#[test]
fn a_command_that_misses_the_network_is_told_that_run_has_none() {
    for level in isolating_levels() {
        let lookup = "getent hosts example.org || { echo Temporary failure in name resolution >&2; exit 1; }";
        for (table, hinted) in [
            (format!("run = '{lookup}'"), true),
            (
                format!(
                    "run = '{lookup}'\nnetwork = true\nenv = {{ RES_OPTIONS = \"timeout:1 attempts:1\" }}"
                ),
                false,
            ),
            ("run = 'exit 1'".to_owned(), false),
        ] {
            let Some(BuildError::Run(error)) = build(&project(&table), level, |_| {}).err() else { continue };
            let hint = error.hint().unwrap_or_default();
            assert_eq!(hint.contains("[build] fetch"), hinted, "{level}: {table}: {hint}");
        }
    }
}

#[test]
fn toolchains_work_at_every_level() {
    let tried = [
        ("rustc", "rustc --version"),
        (
            "cargo",
            "mkdir c && cd c && cargo init -q --vcs none --name c && cargo build -q --offline && cargo run -q --offline",
        ),
        ("node", "node -e 'console.log(require(\"os\").cpus().length > 0)'"),
        ("npm", "npm --version"),
        (
            "python3",
            "python3 -c 'import ssl, subprocess, tempfile; tempfile.TemporaryFile(); subprocess.run([\"true\"], check=True)'",
        ),
        ("java", "java -version"),
        (
            "javac",
            "printf 'class T { public static void main(String[] a) throws Exception { java.io.File.createTempFile(\"semel\", \"x\"); } }' > T.java && javac T.java && java T",
        ),
        ("gcc", "echo 'int main(void){return 0;}' > m.c && gcc m.c -o m && ./m"),
        ("perl", "perl -e 'print 1'"),
        ("git", "git init -q g"),
    ];
    let here = |program: &str| path().split(':').any(|dir| Path::new(dir).join(program).is_file());
    let commands: Vec<String> = tried
        .iter()
        .filter(|(program, _)| here(program))
        .map(|(program, command)| {
            format!("( {command} ) > log 2>&1 || {{ echo FAILED {program}; sed 's/^/FAILED /' log; }}")
        })
        .collect();
    for level in isolating_levels() {
        let table = format!("run = '''\n{}\ntouch out\n'''", commands.join("\n"));
        let done = build(&project(&table), level, |request| {
            request.host = HostEnvironment::of(&std::env::vars().collect());
        });
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        let failed: Vec<&String> = done.lines.iter().filter(|line| line.starts_with("FAILED")).collect();
        assert_eq!(failed, [""; 0], "{level}");
    }
}

/// Every level, also the one that isolates nothing.
fn all_levels() -> Vec<Level> {
    isolating_levels().into_iter().chain([Level::None]).collect()
}

/// A command that leaves a process that lost its parent, has a session of its own and closed its output; and that
/// prints `ready` when the process is there.
fn daemon(mark: &str, then: &str) -> String {
    format!(
        "run = '''\nsetsid sh -c 'sh -c \"exec >/dev/null 2>&1 </dev/null; sleep {mark} & echo > started; wait\" & exit' &\nwhile ! test -e started; do :; done\ntouch out; echo ready; {then}\n'''"
    )
}

/// An argument for `sleep` that no other process has.
fn mark(level: Level, test: u32) -> String {
    format!("3600.{}{test}{}", std::process::id(), level as u32)
}

#[test]
fn nothing_of_a_command_runs_after_its_end() {
    for level in all_levels() {
        let mark = mark(level, 1);
        built(&daemon(&mark, "true"), level);
        assert_eq!(processes(&mark), [""; 0], "{level}");
    }
}

#[test]
fn nothing_of_a_command_runs_after_its_time() {
    for level in all_levels() {
        let mark = mark(level, 2);
        let table = format!("{}\ntimeout = \"1s\"", daemon(&mark, "wait; sleep 3600"));
        let error = build(&project(&table), level, |_| {}).err().unwrap();
        assert!(matches!(error, BuildError::Run(RunError::TimedOut { .. })), "{level}: {error}");
        assert_eq!(processes(&mark), [""; 0], "{level}");
    }
}

#[test]
fn nothing_of_a_command_runs_after_the_build_was_stopped() {
    for level in all_levels() {
        let mark = mark(level, 3);
        let repo = project(&daemon(&mark, "sleep 3600"));
        let work = TempDir::new().unwrap();
        let request =
            BuildRequest { sandbox: sandbox(Some(level)), ..request(repo.source(), work.path().to_owned()) };
        runtime().block_on(async {
            let (sender, mut ready) = tokio::sync::mpsc::unbounded_channel();
            let recorder = Arc::new(Recorder { on_line: Some(sender), ..Recorder::default() });
            let build = tokio::spawn(pipeline::run(request, recorder));
            while ready.recv().await.is_some_and(|line| line != "ready") {}
            assert!(!processes(&mark).is_empty(), "{level}");
            build.abort();
            assert!(build.await.unwrap_err().is_cancelled());
        });
        assert_eq!(processes(&mark), [""; 0], "{level}");
    }
}

#[test]
fn the_provenance_says_what_held_a_command_back() {
    for level in all_levels() {
        let done = built("run = \"touch out\"", level);
        let said = &parameters(&done)["sandbox"];
        assert_eq!(said["level"], level.as_str());
        assert_eq!(said["network"], level == Level::None);
        let not_enforced = said["notEnforced"].as_array().unwrap().len();
        assert_eq!(not_enforced == 0, level == Level::Bubblewrap, "{said}");
        assert_eq!(said["landlockAbi"].is_u64(), level == Level::Landlock, "{said}");
    }
}
