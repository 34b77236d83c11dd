//! `semel sample`: the service of the demo, and the small project that builds it.
//!
//! The service is this very program. What it does is decided by the file `behaviour.toml` beside it, which is a file of the
//! commit; what differs between environments comes from its configuration.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use semel_store::durable::{self, Access};
use serde::Deserialize;

use super::Outcome;
use crate::cli::{SampleVerb, SampleWriteArgs};
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::settings::Settings;

/// What a commit of the sample says that its service does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Behaviour {
    /// How it greets.
    greeting: String,
    /// Environments in which it says that it is not well.
    #[serde(default)]
    unhealthy_in: Vec<String>,
}

pub(super) async fn run(verb: &SampleVerb, settings: &Settings, output: Output) -> Outcome {
    match verb {
        SampleVerb::Serve => serve(settings, output),
        SampleVerb::Write(args) => write(args, settings, output),
        SampleVerb::Install(args) => install(args, settings),
        SampleVerb::Test(args) => test(args, settings, output),
    }
}

fn fault(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::fault(format!("{what}: {error}"))
}

fn behaviour(dir: &Path) -> Result<Behaviour, Failure> {
    let path = dir.join("behaviour.toml");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn serve(settings: &Settings, output: Output) -> Outcome {
    let Some(port) = settings.variable("PORT") else {
        return Err(Failure::usage("the sample service needs PORT in its environment"));
    };
    let dir = settings.program().parent().unwrap_or(Path::new("/")).to_owned();
    let service = Service::new(behaviour(&dir)?, settings);
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))
        .map_err(|error| Failure::usage(format!("cannot listen on port {port}: {error}")))?;
    output.say(format!("greeting on port {port} from {}", service.place));
    service.answer(&listener);
    Ok(Exit::Done)
}

/// The running service.
#[derive(Debug, Clone)]
struct Service {
    greeting: String,
    healthy: bool,
    place: String,
    version: String,
}

impl Service {
    fn new(behaviour: Behaviour, settings: &Settings) -> Self {
        let environment = settings.variable("SEMEL_ENVIRONMENT").unwrap_or("nowhere");
        Self {
            healthy: !behaviour.unhealthy_in.iter().any(|name| name == environment),
            greeting: behaviour.greeting,
            place: settings.variable("PLACE").unwrap_or(environment).to_owned(),
            version: settings.variable("SEMEL_VERSION").unwrap_or("unreleased").to_owned(),
        }
    }

    fn answer(&self, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let service = self.clone();
            // A visitor who hangs up early is no reason to stop.
            std::thread::spawn(move || drop(service.reply(stream)));
        }
    }

    fn reply(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut line = String::new();
        BufReader::new((&mut stream).take(8 * 1024)).read_line(&mut line)?;
        let (status, body) = match line.split(' ').nth(1) {
            Some("/healthz") if self.healthy => ("200 OK", "ok\n".to_owned()),
            Some("/healthz") => ("503 Service Unavailable", "not well\n".to_owned()),
            _ => ("200 OK", format!("{} from {} ({})\n", self.greeting, self.place, self.version)),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

/// The project's files. `ports` are those of dev, staging and production.
pub(super) fn files(ports: [u16; 3]) -> BTreeMap<&'static str, String> {
    let values = |port: u16, place: &str| format!("PORT = {port}\nPLACE = \"{place}\"\n");
    BTreeMap::from([
        ("semel.toml", PROJECT.to_owned()),
        ("behaviour.toml", "greeting = \"Hello\"\n".to_owned()),
        ("config/dev.toml", values(ports[0], "a laptop")),
        ("config/staging.toml", values(ports[1], "the rehearsal")),
        ("config/production.toml", values(ports[2], "the stage")),
    ])
}

const PROJECT: &str = r#"format = 1                  # pins how the artefact is packaged, for ever
component = "demo/greeter"

[build]
run = '"$SEMEL" sample install out/greeter'

[artefact]
kind = "archive"
entrypoint = ["/greeter", "sample", "serve"]
files = [{ from = "out/greeter", to = "/greeter", mode = "0755" }, { from = "behaviour.toml", to = "/behaviour.toml" }]

[config]                    # names and types, never values
PORT = { type = "port" }
PLACE = { type = "string" }
SIGNATURE = { type = "string", secret = true, required = false }

[environment]               # what each environment asks for before it lets a version in
dev = { values = "config/dev.toml", target = { kind = "directory", health = "http://127.0.0.1:${PORT}/healthz" } }
staging = { after = "dev", gates = [{ evidence = "junit" }], values = "config/staging.toml", target = { kind = "directory", health = "http://127.0.0.1:${PORT}/healthz", healthy_within = "5s" } }
production = { after = "staging", gates = [{ evidence = "junit" }], values = "config/production.toml", target = { kind = "directory", health = "http://127.0.0.1:${PORT}/healthz" } }
"#;

/// Writes a file of a project, with its directories.
pub(super) fn put(dir: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = dir.join(name);
    let parent = path.parent().unwrap_or(dir).to_owned();
    durable::create_dir(&parent)
        .and_then(|()| durable::replace(&path, text.as_bytes(), Access::Shared))
        .map_err(|error| fault(&format!("cannot write {}", path.display()), &error))
}

fn write(args: &SampleWriteArgs, settings: &Settings, output: Output) -> Outcome {
    let dir = settings.directory().join(&args.path);
    if dir.join("semel.toml").exists() {
        return Err(Failure::new(Exit::Conflict, format!("{} has a semel.toml already", dir.display())));
    }
    for (name, text) in files([8081, 8082, 8083]) {
        put(&dir, name, &text)?;
    }
    output.done(format!("the sample project is in {}", dir.display()));
    output.next(format!(
        "cd {} && git init && git add . && git commit -m 'Greet' && semel deploy dev",
        dir.display()
    ));
    Ok(Exit::Done)
}

fn install(args: &SampleWriteArgs, settings: &Settings) -> Outcome {
    let path = settings.directory().join(&args.path);
    let parent = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let copied = std::fs::create_dir_all(parent).and_then(|()| std::fs::copy(settings.program(), &path));
    copied.map_err(|error| fault(&format!("cannot copy this program to {}", path.display()), &error))?;
    Ok(Exit::Done)
}

/// Tests the service of the commit that lies here, and writes a JUnit report.
fn test(args: &SampleWriteArgs, settings: &Settings, output: Output) -> Outcome {
    let behaviour = behaviour(settings.directory())?;
    let greeting = behaviour.greeting.clone();
    let service = Service::new(behaviour, settings);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| fault("cannot listen", &error))?;
    let port = listener.local_addr().map_err(|error| fault("cannot listen", &error))?.port();
    std::thread::spawn(move || service.answer(&listener));
    let cases = [
        ("it_greets", get(port, "/").is_ok_and(|body| body.starts_with(&greeting))),
        ("it_is_well", get(port, "/healthz").is_ok_and(|body| body == "ok\n")),
    ];
    let case = |(name, passed): &(&str, bool)| {
        let failure = if *passed { "" } else { "<failure message=\"not as expected\"/>" };
        format!("  <testcase classname=\"greeter\" name=\"{name}\">{failure}</testcase>\n")
    };
    let report = format!(
        "<?xml version=\"1.0\"?>\n<testsuite name=\"greeter\" tests=\"{}\">\n{}</testsuite>\n",
        cases.len(),
        cases.iter().map(case).collect::<String>()
    );
    put(settings.directory(), &args.path.display().to_string(), &report)?;
    let failed = cases.iter().filter(|(_, passed)| !passed).count();
    output.done(format!("{} tests, {failed} failed: {}", cases.len(), args.path.display()));
    Ok(if failed == 0 { Exit::Done } else { Exit::Command })
}

/// The body that a path on this machine answers with 200.
pub(super) fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no answer"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        other => Err(std::io::Error::other(format!("answered {}", other.unwrap_or("nothing")))),
    }
}
