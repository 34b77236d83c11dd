//! `semel demo`: the whole path on a small real project, with the verbs that a user types.
//!
//! Every step is asserted: the demo ends with an error if one thing that it says is not true. It needs git and nothing else.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Outcome, sample};
use crate::cli::DemoArgs;
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::settings::Settings;

const COMPONENT: &str = "demo/greeter";

pub(super) fn run(args: &DemoArgs, settings: &Settings, output: Output) -> Outcome {
    let scratch = Scratch::new(args, settings)?;
    let demo = Demo::new(&scratch, settings, output)?;
    let walked = demo.walk();
    demo.stop_everything();
    walked?;
    output.say("");
    output.done(
        "every step was checked: built once, tested, promoted, deployed three times, rolled back, verified",
    );
    match &args.keep {
        Some(dir) => output.next(format!("look around in {}", dir.display())),
        None => output.next("semel init, in a project of yours"),
    }
    Ok(Exit::Done)
}

/// Where the demo lives: a directory that is removed, or one that is kept.
struct Scratch {
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Scratch {
    fn new(args: &DemoArgs, settings: &Settings) -> Result<Self, Failure> {
        if let Some(dir) = &args.keep {
            let dir = settings.directory().join(dir);
            if std::fs::read_dir(&dir).is_ok_and(|mut listing| listing.next().is_some()) {
                return Err(Failure::usage(format!("{} is not empty", dir.display())));
            }
            std::fs::create_dir_all(&dir)
                .map_err(|error| Failure::usage(format!("cannot create {}: {error}", dir.display())))?;
            return Ok(Self { dir, _temporary: None });
        }
        let temporary = tempfile::Builder::new()
            .prefix("semel-demo-")
            .tempdir()
            .map_err(|error| Failure::fault(format!("cannot create a temporary directory: {error}")))?;
        Ok(Self { dir: temporary.path().to_owned(), _temporary: Some(temporary) })
    }
}

struct Demo<'a> {
    dir: &'a Path,
    project: PathBuf,
    program: &'a Path,
    path: String,
    ports: [u16; 3],
    output: Output,
}

/// What a command of the demo printed and how it ended.
struct Ran {
    stdout: String,
    stderr: String,
    code: i32,
}

impl<'a> Demo<'a> {
    fn new(scratch: &'a Scratch, settings: &'a Settings, output: Output) -> Result<Self, Failure> {
        let dir = scratch.dir.as_path();
        Ok(Self {
            dir,
            project: dir.join("greeter"),
            program: settings.program(),
            path: settings.path(),
            ports: free_ports()?,
            output,
        })
    }

    fn walk(&self) -> Result<(), Failure> {
        self.chapter("A project: a git repository with a service, its tests and three environments");
        self.make_project()?;
        let first = self.build_once()?;
        self.fetch_over_http(&first)?;
        self.first_environment(&first)?;
        self.assure_and_promote(&first)?;
        self.three_configurations(&first)?;
        self.change_configuration_alone(&first)?;
        self.bad_commit_is_rolled_back(&first)?;
        self.good_commit_and_rollback(&first)?;
        self.prove_it(&first)
    }

    fn make_project(&self) -> Result<(), Failure> {
        for (name, text) in sample::files(self.ports) {
            sample::put(&self.project, name, &text)?;
        }
        self.git(&["init", "--quiet", "--initial-branch=main"])?;
        self.commit("feat: greet")?;
        self.show_file("semel.toml")
    }

    fn build_once(&self) -> Result<Built, Failure> {
        self.chapter("Build once: the same source is the same artefact, also as another commit");
        let built = self.built(0)?;
        let again = self.built(0)?;
        self.check(again == built, "a second build gives the same artefact")?;
        sample::put(
            &self.project,
            "config/dev.toml",
            &format!("PORT = {}\nPLACE = \"my laptop\"\n", self.ports[0]),
        )?;
        self.commit("chore: another value for dev")?;
        let after = self.built(0)?;
        self.check(after == built, "a commit that changes only a value makes no new artefact")?;
        Ok(built)
    }

    /// Runs `semel build` and reads what it printed.
    fn built(&self, code: i32) -> Result<Built, Failure> {
        let ran = self.semel(&["build"], code)?;
        let reference = ran.stdout.trim();
        let Some((COMPONENT, digest)) = reference.split_once('@') else {
            return Err(Failure::fault(format!("`semel build` printed `{reference}`")));
        };
        let listed = self.quietly(&["--json", "inspect", digest])?;
        let value: serde_json::Value = serde_json::from_str(&listed.stdout)
            .map_err(|error| Failure::fault(format!("`semel inspect --json` printed no JSON: {error}")))?;
        let version = value["artefact"]["version"].as_str().unwrap_or_default().to_owned();
        self.check(!version.is_empty(), "a build has a version")?;
        Ok(Built { digest: digest.to_owned(), version })
    }

    fn fetch_over_http(&self, built: &Built) -> Result<(), Failure> {
        self.chapter("Store immutably: any OCI client can fetch it");
        self.command("semel serve --listen 127.0.0.1:0 &");
        let mut serving = Serving::start(self.program_command(&["serve", "--listen", "127.0.0.1:0"]))?;
        let port = serving.port()?;
        let path = format!("/v2/{COMPONENT}/manifests/{}", built.version);
        self.command(&format!("curl http://127.0.0.1:{port}{path}"));
        let manifest =
            sample::get(port, &path).map_err(|error| Failure::fault(format!("GET {path}: {error}")))?;
        let digest = semel_model::digest::Digest::of(manifest.as_bytes());
        self.output.say(format!("  {} bytes, {digest}", manifest.len()));
        self.check(digest.as_str() == built.digest, "what is served hashes to the digest that was built")?;
        serving.stop();
        Ok(())
    }

    fn first_environment(&self, built: &Built) -> Result<(), Failure> {
        self.chapter("Deploy: the first environment asks for nothing");
        self.semel(&["deploy", "dev"], 0)?;
        self.visit(0, "Hello from my laptop")?;
        let again = self.semel(&["deploy", "dev"], 0)?;
        self.check(again.stderr.contains("already runs"), "a repeat changes nothing")?;
        self.check(again.stdout.contains(&built.digest), "dev runs what was built")
    }

    fn assure_and_promote(&self, built: &Built) -> Result<(), Failure> {
        self.chapter("Promote: refused without evidence, and recorded");
        let refused = self.semel(&["promote", &built.version, "staging"], 9)?;
        self.check(
            refused.stderr.contains("no evidence of type junit"),
            "the refusal names what is missing",
        )?;
        let resolved = self.semel(&["resolve", &built.version, "staging"], 9)?;
        self.check(resolved.stdout.is_empty(), "nothing is resolved that may not run")?;
        self.semel(&["sample", "test", "results.xml"], 0)?;
        self.semel(&["attest", &built.version, "--type", "junit", "results.xml"], 0)?;
        self.semel(&["promote", &built.version, "staging"], 0)?;
        let resolved = self.semel(&["resolve", &built.version, "staging"], 0)?;
        self.check(
            resolved.stdout.trim() == format!("{COMPONENT}@{}", built.digest),
            "a promoted version is resolved to its digest",
        )
    }

    fn three_configurations(&self, built: &Built) -> Result<(), Failure> {
        self.chapter("Deploy many: the same digest in three environments, each with its own configuration");
        self.semel(&["deploy", &built.version, "staging"], 0)?;
        // The artefact is this program: a value that stands in it would be found in the artefact, and refused.
        let signature = format!("the ensemble of {}", std::process::id());
        self.command(&format!("printf %s '{signature}' | semel config set production SIGNATURE"));
        self.piped(&["config", "set", "production", "SIGNATURE"], &signature)?;
        self.semel(&["deploy", &built.version, "production"], 0)?;
        self.visit(0, "Hello from my laptop")?;
        self.visit(1, "Hello from the rehearsal")?;
        self.visit(2, "Hello from the stage")?;
        self.semel(&["status"], 0)?;
        self.all_run(&built.digest)
    }

    /// Asks the store which digest every environment runs.
    fn all_run(&self, digest: &str) -> Result<(), Failure> {
        let status = self.quietly(&["--json", "status"])?;
        let value: serde_json::Value = serde_json::from_str(&status.stdout)
            .map_err(|error| Failure::fault(format!("`semel status --json` printed no JSON: {error}")))?;
        let lines = value["environments"].as_array().cloned().unwrap_or_default();
        let same = lines.iter().all(|line| {
            line["running"]["digest"] == digest
                && line["observed"]["artefact"] == digest
                && line["drift"] == serde_json::json!([])
        });
        self.check(lines.len() == 3 && same, "all three environments run the same digest, as observed")
    }

    fn change_configuration_alone(&self, built: &Built) -> Result<(), Failure> {
        self.chapter("Change configuration alone: a new deployment of the same artefact");
        sample::put(
            &self.project,
            "config/production.toml",
            &format!("PORT = {}\nPLACE = \"the big stage\"\n", self.ports[2]),
        )?;
        self.commit("chore: production moved")?;
        let deployed = self.semel(&["deploy", &built.version, "production"], 0)?;
        self.check(deployed.stdout.contains(&built.digest), "the artefact is the same")?;
        self.visit(2, "Hello from the big stage")
    }

    fn bad_commit_is_rolled_back(&self, built: &Built) -> Result<(), Failure> {
        self.chapter("A bad commit: healthy on the laptop, not in staging");
        sample::put(&self.project, "behaviour.toml", "greeting = \"Howdy\"\nunhealthy_in = [\"staging\"]\n")?;
        self.commit("feat: greet differently")?;
        let bad = self.built(0)?;
        self.check(bad.digest != built.digest, "another source is another artefact")?;
        self.semel(&["deploy", &bad.version, "dev"], 0)?;
        self.semel(&["sample", "test", "results.xml"], 0)?;
        self.semel(&["attest", &bad.version, "--type", "junit", "results.xml"], 0)?;
        let failed = self.semel(&["deploy", &bad.version, "staging"], 10)?;
        self.check(failed.stderr.contains("was rolled back"), "the failure is undone")?;
        self.visit(1, "Hello from the rehearsal")?;
        self.semel(&["status", "--exit-code"], 1)?;
        let held = self.semel(&["deploy", &built.version, "staging"], 9)?;
        self.check(held.stderr.contains("held"), "nothing moves until somebody looked")?;
        self.semel(&["why", "staging"], 0).map(drop)
    }

    fn good_commit_and_rollback(&self, first: &Built) -> Result<(), Failure> {
        self.chapter("A good commit goes all the way, and production goes back");
        sample::put(&self.project, "behaviour.toml", "greeting = \"Welcome\"\n")?;
        self.commit("fix: be well everywhere")?;
        let good = self.built(0)?;
        self.semel(&["sample", "test", "results.xml"], 0)?;
        self.semel(&["attest", &good.version, "--type", "junit", "results.xml"], 0)?;
        self.semel(&["resume", "staging"], 0)?;
        for environment in ["dev", "staging", "production"] {
            self.semel(&["deploy", &good.version, environment], 0)?;
        }
        self.visit(2, "Welcome from the big stage")?;
        self.semel(&["diff", "staging", "production"], 1)?;
        let back = self.semel(&["rollback", "production"], 0)?;
        self.check(back.stdout.contains(&first.digest), "the rollback goes to what succeeded before")?;
        self.visit(2, "Hello from the big stage")
    }

    fn prove_it(&self, first: &Built) -> Result<(), Failure> {
        self.chapter("Prove it: from which commit, on what grounds, and is the record whole?");
        let commit = self.git(&["rev-list", "--max-parents=0", "HEAD"])?.stdout;
        let found = self.semel(&["where", commit.trim()], 0)?;
        self.check(found.stdout.contains(&first.digest), "a commit leads to its artefact")?;
        let why = self.semel(&["why", "production"], 0)?;
        self.check(
            why.stdout.contains("rolled back") && why.stdout.contains("held"),
            "the reasons are there",
        )?;
        self.semel(&["verify", &first.version], 0)?;
        self.semel(&["audit", "verify"], 0).map(drop)
    }

    fn stop_everything(&self) {
        for environment in ["dev", "staging", "production"] {
            // What never ran cannot be stopped.
            drop(self.quietly(&["stop", environment]));
        }
    }

    fn chapter(&self, title: &str) {
        self.output.say(format!("\n## {title}\n"));
    }

    fn command(&self, line: &str) {
        self.output.say(format!("$ {line}"));
    }

    fn show_file(&self, name: &str) -> Result<(), Failure> {
        self.command(&format!("cat {name}"));
        let text = std::fs::read_to_string(self.project.join(name))
            .map_err(|error| Failure::fault(error.to_string()))?;
        text.lines().for_each(|line| self.output.say(format!("  {line}")));
        Ok(())
    }

    fn check(&self, holds: bool, what: &str) -> Result<(), Failure> {
        if holds {
            self.output.say(format!("  [checked] {what}"));
            Ok(())
        } else {
            Err(Failure::fault(format!("the demo found something that is not true: {what}")))
        }
    }

    fn visit(&self, place: usize, greeting: &str) -> Result<(), Failure> {
        let port = self.ports[place];
        self.command(&format!("curl http://127.0.0.1:{port}/"));
        let body = sample::get(port, "/")
            .map_err(|error| Failure::fault(format!("nobody answers on port {port}: {error}")))?;
        self.output.say(format!("  {}", body.trim_end()));
        self.check(body.starts_with(greeting), &format!("it answers `{greeting}`"))
    }

    fn commit(&self, message: &str) -> Result<(), Failure> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", message])?;
        self.command(&format!("git commit -m '{message}'"));
        Ok(())
    }

    fn git(&self, words: &[&str]) -> Result<Ran, Failure> {
        let mut command = self.environment(Command::new("git"));
        command.args(words);
        let ran = finish(command, None)?;
        if ran.code == 0 {
            Ok(ran)
        } else {
            Err(Failure::fault(format!("git {}: {}", words.join(" "), ran.stderr.trim())))
        }
    }

    fn program_command(&self, words: &[&str]) -> Command {
        let mut command = self.environment(Command::new(self.program));
        command.args(words);
        command
    }

    /// Everything that the demo keeps lies in its own directory.
    fn environment(&self, mut command: Command) -> Command {
        command
            .current_dir(&self.project)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", self.dir)
            .env("XDG_DATA_HOME", self.dir.join("data"))
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("XDG_STATE_HOME", self.dir.join("state"))
            .env("SEMEL_ACTOR", "you")
            .env("GIT_AUTHOR_NAME", "You")
            .env("GIT_AUTHOR_EMAIL", "you@example.org")
            .env("GIT_COMMITTER_NAME", "You")
            .env("GIT_COMMITTER_EMAIL", "you@example.org")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command
    }

    /// Runs a verb as a user would, shows it, and checks how it ended.
    fn semel(&self, words: &[&str], code: i32) -> Result<Ran, Failure> {
        self.command(&format!("semel {}", words.join(" ")));
        let ran = finish(self.program_command(words), None)?;
        ran.stderr.lines().chain(ran.stdout.lines()).for_each(|line| self.output.say(format!("  {line}")));
        self.ended(&ran, words, code)?;
        Ok(ran)
    }

    fn piped(&self, words: &[&str], input: &str) -> Result<Ran, Failure> {
        let ran = finish(self.program_command(words), Some(input))?;
        ran.stderr.lines().for_each(|line| self.output.say(format!("  {line}")));
        self.ended(&ran, words, 0)?;
        self.check(!ran.stderr.contains(input), "the secret is not repeated")?;
        Ok(ran)
    }

    fn quietly(&self, words: &[&str]) -> Result<Ran, Failure> {
        finish(self.program_command(words), None)
    }

    fn ended(&self, ran: &Ran, words: &[&str], code: i32) -> Result<(), Failure> {
        if ran.code == code {
            if code != 0 {
                self.output.say(format!("  (exit {code})"));
            }
            return Ok(());
        }
        Err(Failure::fault(format!("`semel {}` ended with {}, expected {code}", words.join(" "), ran.code)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Built {
    digest: String,
    version: String,
}

fn finish(mut command: Command, input: Option<&str>) -> Result<Ran, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Failure::usage(format!("cannot run {program}: {error}")).hint("the demo needs git; install it")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is no failure.
        drop(std::io::Write::write_all(&mut stdin, input.unwrap_or("").as_bytes()));
    }
    let output = child.wait_with_output().map_err(|error| Failure::fault(format!("{program}: {error}")))?;
    Ok(Ran {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    })
}

fn free_ports() -> Result<[u16; 3], Failure> {
    let failed = |error: std::io::Error| Failure::fault(format!("no port is free on this machine: {error}"));
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().map_err(failed)?;
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().map_err(failed)?.port();
    }
    Ok(ports)
}

/// A server in the background.
struct Serving(Child);

impl Serving {
    fn start(mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map(Self).map_err(|error| Failure::fault(format!("cannot start the server: {error}")))
    }

    /// The port that the server prints when it is ready.
    fn port(&mut self) -> Result<u16, Failure> {
        let mut line = String::new();
        if let Some(stdout) = self.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| Failure::fault(error.to_string()))?;
        }
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        port.ok_or_else(|| Failure::fault(format!("the server printed `{}`", line.trim())))
    }

    fn stop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; waiting for it is right in both cases.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        drop(self.0.wait());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}
