//! docs/project-file.md says of every key of `semel.toml` what the model makes of it.

use std::collections::BTreeSet;

use semel_model::project::Project;
use toml::{Table, Value};

const PAGE: &str = include_str!("../../../../docs/project-file.md");

/// Files with everything that is required, one for each kind of artefact: what an example needs beside it stands there.
const FILES: [&str; 5] = [ARCHIVE, IMAGE, TAKEN, ZIP, VM];

const ARCHIVE: &str = r#"
format = 1
component = "other"
build = { fetch = "true" }
source = {}
version = {}
artefact = { kind = "archive", files = [{ from = "a", to = "/a" }], closure = {} }
config = { NAME = { type = "string" } }
waiver = [{ rule = "shape/env-file", path = "/.env", reason = "nothing is in it", until = 2026-01-31 }]
[environment]
dev = { gates = [{ evidence = "other" }], target = { kind = "directory" } }
staging = {}
load = {}
"#;

const IMAGE: &str = r#"
format = 1
component = "other"
artefact = { kind = "image", files = [{ from = "a", to = "/a" }] }
"#;

const TAKEN: &str = r#"
format = 1
component = "other"
artefact = { kind = "image", from = "other.oci" }
"#;

const ZIP: &str = r#"
format = 1
component = "other"
artefact = { kind = "zip", files = [{ from = "a", to = "/a" }], runtime = "python3.12", handler = "a.b" }
"#;

const VM: &str = r#"
format = 1
component = "other"
artefact = { kind = "vm", image = "other.qcow2", disk = { format = "qcow2" } }
"#;

/// Where the keys of each table of the page stand in a file, in the order of the page. `0` is the first of a list.
const PLACES: [&[&str]; 13] = [
    &[],
    &["source"],
    &["build"],
    &["artefact"],
    &["artefact", "files", "0"],
    &["artefact", "closure"],
    &["artefact", "disk"],
    &["config", "NAME"],
    &["version"],
    &["environment", "dev"],
    &["environment", "dev", "gates", "0"],
    &["environment", "dev", "target"],
    &["waiver", "0"],
];

/// A row of the page.
#[derive(Debug)]
struct Row {
    place: &'static [&'static str],
    key: String,
    meaning: String,
    default: String,
    example: String,
}

#[test]
fn the_page_has_every_key_and_no_other() {
    for place in PLACES {
        let mut on_page: BTreeSet<String> =
            rows().into_iter().filter(|row| row.place == place).map(|row| row.key).collect();
        if place.is_empty() {
            on_page.extend(tables());
        }
        assert_eq!(on_page, known_at(place), "{place:?}");
    }
}

#[test]
fn every_example_is_understood_and_says_something() {
    for row in rows() {
        let understood = FILES.iter().find_map(|file| {
            let without = parse(&changed(file, row.place, |table| drop(table.remove(&row.key))));
            let with = parse(&changed(file, row.place, |table| table.extend(line(&row.example)))).ok()?;
            Some(without.is_ok_and(|without| without == with))
        });
        assert!(line(&row.example).contains_key(&row.key), "{row:?}");
        assert_eq!(understood, Some(false), "{row:?}");
    }
}

#[test]
fn what_is_required_is_required_and_what_has_a_default_means_the_same_with_it() {
    for row in rows() {
        let without = |file: &&str| parse(&changed(file, row.place, |table| drop(table.remove(&row.key))));
        match row.default.strip_prefix('`').and_then(|rest| rest.split_once('`')) {
            None if row.default == "*required*" => {
                assert!(FILES.iter().all(|file| without(file).is_err()), "{row:?}");
            }
            None => {
                assert!(row.default.starts_with("*none*"), "{row:?}");
                assert!(FILES.iter().any(|file| without(file).is_ok()), "{row:?}");
            }
            Some((default, _)) => {
                let with = parse(&changed(ARCHIVE, row.place, |table| table.extend(line(default))));
                assert_eq!(with, without(&ARCHIVE), "{row:?}");
            }
        }
    }
}

#[test]
fn where_a_word_is_wanted_the_page_has_all_of_them() {
    let mut checked = 0;
    for row in rows() {
        let wrong = Value::from("no such word");
        let text = changed(ARCHIVE, row.place, |table| drop(table.insert(row.key.clone(), wrong)));
        let Some(problem) = parse(&text).err().filter(|problem| problem.starts_with("unknown variant"))
        else {
            continue;
        };
        for word in problem.split('`').skip(3).step_by(2) {
            assert!(row.meaning.contains(&format!("`{word}`")), "{word}: {row:?}");
            checked += 1;
        }
    }
    assert!(checked > 10, "found only {checked} words");
}

/// The rows of all tables.
fn rows() -> Vec<Row> {
    let mut places = PLACES.into_iter();
    let mut place = None;
    let mut rows = Vec::new();
    for text in PAGE.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = text.trim_matches('|').split('|').map(str::trim).collect();
        let [key, meaning, default, example] = cells[..] else { panic!("{text} has not four cells") };
        match place {
            _ if key == "key" => place = places.next(),
            Some(place) => rows.push(Row {
                place,
                key: code(key),
                meaning: meaning.to_owned(),
                default: default.to_owned(),
                example: code(example),
            }),
            None => panic!("{text} is in no table"),
        }
    }
    assert_eq!(places.next(), None, "the page has too few tables");
    rows
}

/// What stands between the first two backticks.
fn code(cell: &str) -> String {
    cell.split('`').nth(1).unwrap_or_else(|| panic!("nothing in backticks: {cell}")).to_owned()
}

/// The tables that have a chapter: `[source]`, `[environment.NAME]`, `[[waiver]]`.
fn tables() -> BTreeSet<String> {
    let titles = PAGE.lines().filter_map(|line| line.strip_prefix("## `["));
    titles
        .map(|title| title.trim_start_matches('[').split([']', '.']).next().unwrap_or_default().to_owned())
        .collect()
}

/// The keys that the model knows at a place: it names them to whoever writes another one.
fn known_at(place: &[&str]) -> BTreeSet<String> {
    let unknown = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";
    let text = changed(ARCHIVE, place, |table| drop(table.insert(unknown.to_owned(), Value::from(1))));
    let problem = parse(&text).expect_err("nothing is called like that");
    let known = problem.strip_prefix(&format!("unknown key `{unknown}`: known here: "));
    known.unwrap_or_else(|| panic!("{place:?}: {problem}")).split(", ").map(str::to_owned).collect()
}

fn line(toml: &str) -> Table {
    toml.parse().unwrap_or_else(|error| panic!("{toml}: {error}"))
}

/// A file with a change at one place. A place that the file does not have is made.
fn changed(file: &str, place: &[&str], change: impl FnOnce(&mut Table)) -> String {
    let mut file = line(file);
    let mut at = &mut file;
    let mut steps = place.iter().peekable();
    while let Some(step) = steps.next() {
        let value = at.entry(*step).or_insert_with(|| Value::Table(Table::new()));
        at = match (value, steps.next_if_eq(&&"0")) {
            (Value::Array(list), Some(_)) => list[0].as_table_mut().unwrap(),
            (Value::Table(table), None) => table,
            _ => return line_of(&file),
        };
    }
    change(at);
    line_of(&file)
}

fn line_of(file: &Table) -> String {
    toml::to_string(file).unwrap()
}

fn parse(text: &str) -> Result<Project, String> {
    Project::parse("semel.toml", text).map_err(|invalid| invalid.problem)
}
