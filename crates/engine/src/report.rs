//! Reports that become evidence: JUnit XML.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use semel_model::pipeline::EvidenceResult;
use serde_json::{Value, json};

/// The most bytes that a report may have.
pub(crate) const REPORT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many names of failed tests a statement carries.
const NAMES_MAX: usize = 200;

/// What a test report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that were skipped.
    pub skipped: u64,
    /// The names of those that failed.
    pub failed: Vec<String>,
}

/// Why a report says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReport {
    /// It is no XML, or ends too early.
    #[error("not a JUnit report: {problem} (byte {at})")]
    Malformed {
        /// What is wrong.
        problem: String,
        /// Where.
        at: u64,
    },
    /// The XML is something else.
    #[error("not a JUnit report: its root is <{0}>, expected <testsuites> or <testsuite>")]
    Foreign(String),
    /// It ran nothing.
    #[error("the report contains no test: a run without tests proves nothing")]
    Empty,
}

impl TestReport {
    /// Pass, if nothing failed.
    pub fn result(&self) -> EvidenceResult {
        if self.failed.is_empty() { EvidenceResult::Pass } else { EvidenceResult::Fail }
    }

    /// The in-toto test-result predicate (v0.1).
    pub fn predicate(&self) -> Value {
        let names: Vec<&String> = self.failed.iter().take(NAMES_MAX).collect();
        json!({
            "result": if self.failed.is_empty() { "PASSED" } else { "FAILED" },
            "configuration": [],
            "failedTests": names,
            "semel_counts": {"passed": self.passed, "failed": self.failed.len(), "skipped": self.skipped},
        })
    }
}

/// Reads a JUnit XML report, counting the test cases themselves rather than believing the totals.
pub fn junit(bytes: &[u8]) -> Result<TestReport, InvalidReport> {
    let mut reader = Reader::from_reader(bytes);
    let mut report = TestReport { passed: 0, skipped: 0, failed: Vec::new() };
    let mut open: Vec<String> = Vec::new();
    let mut case: Option<Case> = None;
    loop {
        let at = reader.buffer_position();
        let malformed = |problem: String| InvalidReport::Malformed { problem, at };
        match reader.read_event().map_err(|error| malformed(error.to_string()))? {
            Event::Start(tag) => {
                let name = tag_name(&tag);
                check_root(&open, &name)?;
                enter(&tag, &name, &mut case);
                open.push(name);
            }
            Event::Empty(tag) => {
                let name = tag_name(&tag);
                check_root(&open, &name)?;
                enter(&tag, &name, &mut case);
                if name == "testcase" {
                    count(&mut report, case.take());
                }
            }
            Event::End(_) if open.pop().as_deref() == Some("testcase") => {
                count(&mut report, case.take());
            }
            Event::Eof if open.is_empty() => break,
            Event::Eof => {
                return Err(malformed(format!(
                    "it ends inside <{}>",
                    open.last().map_or("", String::as_str)
                )));
            }
            _ => {}
        }
    }
    if report.passed + report.skipped == 0 && report.failed.is_empty() {
        Err(InvalidReport::Empty)
    } else {
        Ok(report)
    }
}

struct Case {
    name: String,
    failed: bool,
    skipped: bool,
}

fn tag_name(tag: &BytesStart<'_>) -> String {
    tag.local_name().as_ref().to_owned()
}

fn check_root(open: &[String], name: &str) -> Result<(), InvalidReport> {
    if open.is_empty() && !matches!(name, "testsuites" | "testsuite") {
        return Err(InvalidReport::Foreign(name.to_owned()));
    }
    Ok(())
}

fn enter(tag: &BytesStart<'_>, name: &str, case: &mut Option<Case>) {
    match (name, case.as_mut()) {
        ("testcase", _) => *case = Some(Case { name: case_name(tag), failed: false, skipped: false }),
        ("failure" | "error", Some(case)) => case.failed = true,
        ("skipped", Some(case)) => case.skipped = true,
        _ => {}
    }
}

fn case_name(tag: &BytesStart<'_>) -> String {
    let attribute = |wanted: &str| {
        tag.attributes()
            .flatten()
            .find(|attribute| attribute.key.as_ref() == wanted)
            .map(|attribute| attribute.value.into_owned())
    };
    match (attribute("classname"), attribute("name")) {
        (Some(class), Some(name)) => format!("{class}::{name}"),
        (None, Some(name)) => name,
        _ => "(unnamed)".to_owned(),
    }
}

fn count(report: &mut TestReport, case: Option<Case>) {
    match case {
        Some(case) if case.failed => report.failed.push(case.name),
        Some(case) if case.skipped => report.skipped += 1,
        Some(_) => report.passed += 1,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_cases_are_counted_whatever_the_totals_say() {
        let xml = br#"<?xml version="1.0"?><testsuites tests="99" failures="0"><testsuite name="a">
            <testcase classname="a" name="passes"/><testcase name="fails"><failure>x &lt; y</failure></testcase>
            <testcase classname="a" name="errs"><error/></testcase><testcase name="skips"><skipped/></testcase>
            </testsuite></testsuites>"#;
        let report = junit(xml).unwrap();
        assert_eq!((report.passed, report.skipped), (1, 1));
        assert_eq!(report.failed, ["fails", "a::errs"]);
        assert_eq!(report.result(), EvidenceResult::Fail);
    }

    #[test]
    fn what_is_no_report_is_refused_with_its_reason() {
        for (xml, expected) in [
            ("", "contains no test"),
            ("<testsuite/>", "contains no test"),
            ("<html><body/></html>", "its root is <html>"),
            ("<testsuite><testcase name=\"a\">", "it ends inside <testcase>"),
            ("<testsuite><testcase name=\"a\"/></wrong>", "not a JUnit report"),
            ("{\"tests\": 3}", "contains no test"),
        ] {
            let error = junit(xml.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{xml}: {error}");
        }
    }
}
