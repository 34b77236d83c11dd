//! What one verb takes from the start of its process to the end, on the large store.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fill::version;
use crate::project::output;
use crate::scratch::Scratch;
use crate::{Error, Line, Options};

const READ: Duration = Duration::from_millis(50);
const DEPLOY: Duration = Duration::from_millis(100);

/// A command that is measured.
struct Case<'a> {
    name: &'static str,
    target: Option<Duration>,
    /// The command of a round, counted from 0.
    command: Box<dyn Fn(u64) -> Command + 'a>,
}

/// Deploys the project's newest commit for real, then measures every verb in turn, round after round, so that whatever else the
/// machine does meets all alike. The first round only warms up.
pub(crate) fn measure(scratch: &Scratch, options: &Options) -> Result<Vec<Line>, Error> {
    let deployed = deploy(scratch)?;
    let cases = cases(scratch, options, &deployed)?;
    let mut times = vec![Vec::new(); cases.len()];
    let measured = (0..=options.runs as u64).try_for_each(|round| {
        for (case, times) in cases.iter().zip(&mut times) {
            let took = time((case.command)(round))?;
            if round > 0 {
                times.push(took);
            }
        }
        Ok(())
    });
    for environment in ["staging", "production"] {
        output(scratch.semel(&["stop", environment]))?;
    }
    measured.map(|()| cases.iter().zip(times).map(|(case, times)| line(case, times)).collect())
}

/// A history of deployments: an older commit and the newest, back and forth.
fn deploy(scratch: &Scratch) -> Result<String, Error> {
    let report = write_report(scratch)?;
    let mut digests = Vec::new();
    for revision in ["HEAD~1", "HEAD"] {
        let built = output(scratch.semel(&["build", revision]))?;
        let (_, digest) = built.split_once('@').ok_or("a build prints its reference")?;
        output(scratch.semel(&["attest", digest, "--type", "junit", &report]))?;
        digests.push(digest.to_owned());
    }
    for digest in digests.iter().cycle().take(6) {
        for environment in ["staging", "production"] {
            output(scratch.semel(&["deploy", digest, environment]))?;
        }
    }
    digests.pop().ok_or_else(|| "two commits were built".into())
}

fn write_report(scratch: &Scratch) -> Result<String, Error> {
    let path = scratch.path("results.xml");
    let mut file = File::options().write(true).create_new(true).open(&path)?;
    file.write_all(
        b"<testsuite name=\"s\" tests=\"1\"><testcase classname=\"s\" name=\"serves\"/></testsuite>\n",
    )?;
    Ok(path.display().to_string())
}

fn cases<'a>(scratch: &'a Scratch, options: &Options, deployed: &str) -> Result<Vec<Case<'a>>, Error> {
    let head = scratch.git(&["rev-parse", "HEAD"])?;
    let old = scratch.git(&["rev-parse", &format!("HEAD~{}", options.versions / 2)])?;
    let versions = options.versions;
    // Every round of it needs a version that was not promoted before.
    let newly_granted = move |round| {
        scratch.semel(&[
            "promote".to_owned(),
            version(versions - 1 - round).to_string(),
            "staging".to_owned(),
        ])
    };
    let semel = |name, target, words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Case { name, target, command: Box::new(move |_| scratch.semel(&words)) }
    };
    let peer = |name, program: &'static str, words: &'static [&'static str]| Case {
        name,
        target: None,
        command: Box::new(move |_| scratch.command(Path::new(program), words)),
    };
    Ok(vec![
        peer("peer: true", "true", &[]),
        peer("peer: git rev-parse HEAD", "git", &["rev-parse", "HEAD"]),
        peer("peer: git status", "git", &["status", "--porcelain"]),
        semel("semel --version", None, &["--version"]),
        semel("semel build (unchanged)", Some(READ), &["build"]),
        semel("semel status", Some(READ), &["status"]),
        semel("semel where COMMIT (runs)", Some(READ), &["where", &head]),
        semel("semel where COMMIT (old)", Some(READ), &["where", &old]),
        semel("semel versions", Some(READ), &["versions"]),
        semel("semel why ENV", Some(READ), &["why", "production"]),
        semel("semel promote (granted before)", Some(READ), &["promote", deployed, "production"]),
        Case { name: "semel promote (newly granted)", target: Some(READ), command: Box::new(newly_granted) },
        semel(
            "semel deploy VERSION ENV (changes nothing)",
            Some(DEPLOY),
            &["deploy", deployed, "production"],
        ),
        semel("semel deploy ENV (HEAD, changes nothing)", Some(DEPLOY), &["deploy", "staging"]),
    ])
}

fn time(mut command: Command) -> Result<Duration, Error> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status()?;
    let took = started.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?} ended with {status}").into()) }
}

fn line(case: &Case, mut times: Vec<Duration>) -> Line {
    times.sort();
    let median = times[times.len() / 2];
    let high = times[times.len() * 95 / 100];
    let measured = format!("{:.1} ms; {:.1} ms", millis(median), millis(high));
    match case.target {
        None => Line::fact(case.name, measured),
        Some(target) => {
            Line::at_most(case.name, measured, format!("<= {} ms", target.as_millis()), median <= target)
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
