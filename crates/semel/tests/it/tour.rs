//! The tour of the README, typed and compared: what it shows is what a user sees.
//!
//! `UPDATE_TOUR=1 cargo test --release -p semel --test it tour` writes what was answered into the README: the times and sizes there
//! are those of a release.

use std::path::{Path, PathBuf};

use crate::environment::{TestEnvironment, free_port};

const BEGIN: &str = "<!-- the tour: kept true by crates/semel/tests/it/tour.rs -->\n```console\n";
const END: &str = "```\n";
/// The ports that the sample project names, and the README shows.
const PORTS: [&str; 3] = ["8081", "8082", "8083"];

#[test]
fn the_tour_of_the_readme_is_what_a_user_sees() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has a tour");
    let (tour, after) = rest.split_once(END).expect("the tour ends");
    let walked = walk(tour);
    if std::env::var_os("UPDATE_TOUR").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{walked}{END}{after}")).unwrap();
        return;
    }
    let normal = |text: &str| text.lines().map(normal).collect::<Vec<_>>().join("\n");
    assert_eq!(normal(tour), normal(&walked), "\n{walked}");
}

/// Types every command of the tour, and writes down what is answered.
fn walk(tour: &str) -> String {
    let environment = TestEnvironment::empty();
    let ports = [free_port(), free_port(), free_port()].map(|port| port.to_string());
    let mut dir = environment.dir();
    let mut walked = String::new();
    for command in tour.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let answer = typed(&environment, &mut dir, command);
        if command.starts_with("semel sample write") {
            use_ports(&dir.join("greeter"), &ports);
        }
        walked.extend(["$ ", command, "\n"]);
        for line in answer.lines() {
            let shown =
                PORTS.iter().zip(&ports).fold(line.to_owned(), |line, (name, port)| line.replace(port, name));
            let shown = shown.replace(&*environment.dir().to_string_lossy(), "~");
            walked.push_str(shown.trim_end());
            walked.push('\n');
        }
    }
    walked
}

/// Runs a line as a shell does, with both streams in the order in which they are written.
fn typed(environment: &TestEnvironment, dir: &mut PathBuf, line: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_semel"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = environment.program("/bin/sh");
    shell.current_dir(&*dir).env("PATH", path).args(["-c", &format!("exec 2>&1; {line}")]);
    let output = shell.output().unwrap();
    if let Some(below) = line.strip_prefix("cd ").and_then(|rest| rest.split_whitespace().next()) {
        dir.push(below);
    }
    String::from_utf8(output.stdout).unwrap()
}

/// The sample's ports may be taken on this machine; the test takes others.
fn use_ports(project: &Path, ports: &[String; 3]) {
    for (name, (shown, port)) in ["dev", "staging", "production"].iter().zip(PORTS.iter().zip(ports)) {
        let path = project.join(format!("config/{name}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(shown, port)).unwrap();
    }
}

/// A line without what differs from run to run.
fn normal(line: &str) -> String {
    // What the host has for it is another thing on another host.
    if let Some((begin, _)) = line.split_once("closure complete") {
        return begin.to_owned();
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let measured = |at: usize| {
        words[at].parse::<f64>().is_ok()
            && words
                .get(at + 1)
                .is_some_and(|unit| matches!(unit.trim_end_matches([',', ')']), "s" | "B" | "KiB" | "MiB"))
    };
    let word = |at: usize| match words[at] {
        word if longest_hexadecimal(word) >= 7 => "#",
        word if word.contains("T") && word.ends_with('Z') => "T",
        _ if measured(at) => "N",
        word => word,
    };
    (0..words.len()).map(word).collect::<Vec<_>>().join(" ")
}

fn longest_hexadecimal(word: &str) -> usize {
    word.split(|c: char| !matches!(c, '0'..='9' | 'a'..='f')).map(str::len).max().unwrap_or(0)
}
