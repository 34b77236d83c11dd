//! Python: whether installed distributions have what they require, and were made for the platform.
//!
//! A distribution is a directory `NAME.dist-info` with METADATA (core metadata, "Requires-Dist") and WHEEL ("Tag"). Which
//! distributions are one environment is decided when Python starts, and some carry others inside them; here all of an
//! artefact are taken as one, in which a name may be there in several versions.

use std::collections::{BTreeMap, BTreeSet};

use semel_model::runtime::{Language, PYTHON_BRINGS, Runtime};

use super::report::{Finding, Rule, Severity};
use super::{Check, ClosureError, Machine, ignore_hint, metadata, shown};

mod requirement;
mod version;

use requirement::{Requirement, Surroundings, normal};
use version::Version;

/// An installed distribution.
struct Distribution {
    /// Its METADATA.
    path: Vec<u8>,
    /// Whether the base has it.
    is_of_base: bool,
    name: String,
    version: String,
    requires: Vec<Requirement>,
}

/// Checks every distribution of the artefact.
pub(super) fn check(check: &mut Check<'_>) -> Result<(), ClosureError> {
    let installed = distributions(check)?;
    let surroundings = surroundings(check, &installed);
    let extras = asked_extras(&installed, &surroundings);
    for distribution in installed.values().flatten() {
        check_requirements(check, distribution, &installed, &extras[&distribution.name], &surroundings);
        check_wheel(check, distribution, &surroundings)?;
    }
    Ok(())
}

type Installed = BTreeMap<String, Vec<Distribution>>;

fn distributions(check: &Check<'_>) -> Result<Installed, ClosureError> {
    let mut installed = Installed::new();
    for (path, node) in check.rootfs().files() {
        if !path.ends_with(b".dist-info/METADATA") {
            continue;
        }
        let text = metadata(path, node)?;
        let field = |name: &str| fields(&text, name).next().unwrap_or_default().to_owned();
        let name = normal(&field("Name"));
        let requires = fields(&text, "Requires-Dist").filter_map(Requirement::parse).collect();
        let is_of_base = node.is_of_base();
        let distribution = Distribution {
            path: path.to_vec(),
            is_of_base,
            name: name.clone(),
            version: field("Version"),
            requires,
        };
        if !name.is_empty() {
            installed.entry(name).or_default().push(distribution);
        }
    }
    Ok(installed)
}

/// The values of a field of the headers, which end at an empty line (RFC 822, as the packaging specifications use it).
fn fields<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let headers = text.lines().take_while(|line| !line.is_empty());
    headers.filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// What markers are about. The version of Python is read from the paths: `lib/python3.11/…`, or `bin/python3.11`.
fn surroundings(check: &Check<'_>, installed: &Installed) -> Surroundings {
    let (below, own): (Vec<&Distribution>, Vec<_>) =
        installed.values().flatten().partition(|one| one.is_of_base);
    let of_runtime = check.question.runtime.and_then(|runtime| match runtime.language {
        Language::Python(major, minor) => Some((major, minor)),
        _ => None,
    });
    let named = of_runtime.or_else(|| own.iter().chain(&below).find_map(|one| version_in(&one.path)));
    let python = named.or_else(|| {
        let programs = check.rootfs().entries().map(|(path, _)| path);
        programs.filter(|path| path.contains(&b'/')).find_map(|path| {
            let (dir, name) = path.split_at(path.iter().rposition(|byte| *byte == b'/')?);
            dir.ends_with(b"bin").then(|| version_in(name))?
        })
    });
    let machine = Machine::of(&check.question.platform.architecture);
    let machine = machine.map(Machine::name).unwrap_or_default();
    Surroundings { python, machine }
}

/// `/python3.11` as the end of a path or before a slash → 3.11.
fn version_in(path: &[u8]) -> Option<(u32, u32)> {
    let parts = path.split(|byte| *byte == b'/').rev();
    parts.filter_map(|part| std::str::from_utf8(part).ok()).find_map(|part| {
        let (major, minor) = part.strip_prefix("python")?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

/// The extras of each distribution that others require: `requests[socks]` asks for `socks`.
fn asked_extras(installed: &Installed, surroundings: &Surroundings) -> BTreeMap<String, BTreeSet<String>> {
    let mut extras: BTreeMap<String, BTreeSet<String>> =
        installed.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
    loop {
        let mut asked = Vec::new();
        for distribution in installed.values().flatten() {
            let own = &extras[&distribution.name];
            let needed = distribution.requires.iter().filter(|one| one.applies(surroundings, own));
            asked.extend(needed.flat_map(|one| one.extras.iter().map(|extra| (&one.name, extra))));
        }
        let mut grown = false;
        for (name, extra) in asked {
            grown |= extras.get_mut(name).is_some_and(|known| known.insert(extra.clone()));
        }
        if !grown {
            return extras;
        }
    }
}

fn check_requirements(
    check: &mut Check<'_>,
    distribution: &Distribution,
    installed: &Installed,
    extras: &BTreeSet<String>,
    surroundings: &Surroundings,
) {
    for requirement in distribution.requires.iter().filter(|one| one.applies(surroundings, extras)) {
        let explanation = match installed.get(&requirement.name).map(Vec::as_slice) {
            None | Some([]) if is_of_runtime(check, &requirement.name) => continue,
            None | Some([]) => format!("requires {requirement}, which is not in the artefact"),
            Some(found) if found.iter().any(|one| fits(requirement, one)) => continue,
            Some([found, ..]) => format!("requires {requirement}, and the artefact has {}", found.version),
        };
        check.find(Finding {
            severity: if distribution.is_of_base { Severity::Warning } else { Severity::Error },
            rule: Rule::PythonRequirement,
            path: shown(&distribution.path),
            needs: Some(requirement.name.clone()),
            explanation,
            fix: format!(
                "install it beside the others, such as with pip install --target, or say why not: {}",
                ignore_hint(&requirement.name)
            ),
            chain: Vec::new(),
        });
    }
}

/// Whether the runtime of a zip brings a distribution.
fn is_of_runtime(check: &Check<'_>, name: &str) -> bool {
    let python = |runtime: &Runtime| matches!(runtime.language, Language::Python(..));
    check.question.runtime.is_some_and(python) && PYTHON_BRINGS.contains(&name)
}

/// What cannot be read as a version is taken to fit.
fn fits(requirement: &Requirement, found: &Distribution) -> bool {
    Version::parse(&found.version).is_none_or(|version| requirement.allows(&version))
}

fn check_wheel(
    check: &mut Check<'_>,
    distribution: &Distribution,
    surroundings: &Surroundings,
) -> Result<(), ClosureError> {
    let mut path = distribution.path.clone();
    path.truncate(path.len() - b"METADATA".len());
    path.extend_from_slice(b"WHEEL");
    let Some(node) = check.rootfs().get(&path) else { return Ok(()) };
    let text = metadata(&path, node)?;
    let tags: Vec<&str> = fields(&text, "Tag").collect();
    if tags.is_empty() || tags.iter().any(|tag| surroundings.accepts(tag)) {
        return Ok(());
    }
    let platform = check.question.platform;
    let python =
        surroundings.python.map(|(major, minor)| format!(" and Python {major}.{minor}")).unwrap_or_default();
    check.find(Finding {
        severity: if distribution.is_of_base { Severity::Warning } else { Severity::Error },
        rule: Rule::PythonPlatform,
        path: shown(&path),
        needs: Some(distribution.name.clone()),
        explanation: format!(
            "is of a wheel for {}, and the artefact is for {}/{}{python}",
            tags.join(", "),
            platform.os,
            platform.architecture
        ),
        fix: "install the wheel for that platform: pip install --only-binary=:all: --platform … --python-version …"
            .to_owned(),
        chain: Vec::new(),
    });
    Ok(())
}
