//! Object: programs and libraries, and everything that is loaded with them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use semel_model::runtime::SYSTEM_LIBRARIES;

use super::elf::{Machine, NeededVersion, Object};
use super::format::Format;
use super::glibc::{Version, systems_with};
use super::loader::{DEEPEST_LOAD, Found, Libc, Loaded, Loader, Search, directory};
use super::report::{Finding, Rule, Severity};
use super::script::{self, Runs};
use super::start::Start;
use super::{Check, Node, ignore_hint, shown, text};

/// Checks what is loaded from the starts, then, more mildly, everything else.
pub(super) fn check<'a>(check: &mut Check<'a>, starts: &[Start<'a>]) {
    let Some(machine) = Machine::of(&check.question.platform.architecture) else { return };
    let loader = Loader::new(check, machine);
    let mut by_name = BTreeMap::new();
    for (path, node) in check.rootfs().entries() {
        if !matches!(node, Node::Directory { .. }) {
            by_name.entry(name_of(path)).or_insert(path);
        }
    }
    let mut walk = Walk { check, loader, machine, entered: BTreeSet::new(), by_name };
    for start in starts {
        walk.enter(start.path, Severity::Error, &start.by, None);
    }
    walk.check_the_rest();
}

/// The kernel follows so many scripts that are run by scripts (`exec_binprm` of fs/exec.c).
const MOST_SCRIPTS: usize = 5;

struct Walk<'c, 'a> {
    check: &'c mut Check<'a>,
    loader: Loader<'a>,
    machine: Machine,
    entered: BTreeSet<&'a [u8]>,
    /// The first file or link of each name, wherever it lies.
    by_name: BTreeMap<&'a [u8], &'a [u8]>,
}

/// The last part of a path.
fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

impl<'a> Walk<'_, 'a> {
    /// A file that is executed, or loaded as a root.
    fn enter(&mut self, path: &'a [u8], severity: Severity, by: &[String], depth: Option<usize>) {
        if !self.entered.insert(path) || depth.is_some_and(|depth| depth > MOST_SCRIPTS) {
            return;
        }
        let formats = self.check.formats;
        match formats.get(path) {
            Some(Format::Object(object)) => self.load(path, object, severity, by),
            Some(Format::Script(shebang)) => {
                let runs = script::check(self.check, path, shebang, severity, by);
                let by: Vec<String> = by.iter().cloned().chain([shown(path)]).collect();
                if let Runs::Inside(programs) = runs {
                    for program in programs {
                        self.enter(program, severity, &by, Some(depth.unwrap_or(0) + 1));
                    }
                }
            }
            Some(Format::BrokenObject(problem)) => self.broken(path, problem, severity, by),
            Some(Format::Foreign(system)) => {
                let what = format!("is made for {system}");
                self.foreign(path, &what, severity, by);
            }
            None => {}
        }
    }

    /// Loads an object with everything that it needs, as a process would.
    fn load(&mut self, path: &'a [u8], object: &'a Object, severity: Severity, by: &[String]) {
        if !self.is_for_machine(path, object, severity, by) {
            return;
        }
        let libc = match &object.interpreter {
            Some(interpreter) => {
                self.check_interpreter(path, interpreter, severity, by);
                Libc::of_loader(interpreter)
            }
            None => self.libc_without_program(object),
        };
        let program = Rc::new(Loaded { path, origin: directory(path), object, by: None, depth: 0 });
        let mut process = Process::default();
        process.add(Rc::clone(&program), None);
        while let Some(loaded) = process.ahead.pop_front() {
            self.check.reached.insert(loaded.path);
            for name in &loaded.object.needed {
                self.load_library(&mut process, libc, &loaded, name, severity, by);
            }
        }
        for loaded in &process.all {
            self.check_versions(&process, loaded, severity, by);
        }
    }

    fn load_library(
        &mut self,
        process: &mut Process<'a>,
        libc: Libc,
        from: &Rc<Loaded<'a>>,
        name: &'a [u8],
        severity: Severity,
        by: &[String],
    ) {
        if process.names.contains_key(name) || (libc == Libc::Musl && is_part_of_musl(name)) {
            return;
        }
        match self.loader.search(libc, from, name) {
            Search::Found(_) if from.depth == DEEPEST_LOAD => {
                let problem = format!("it is loaded by a chain of {DEEPEST_LOAD} others");
                self.broken(from.path, &problem, severity, by);
            }
            Search::Found(Found { path, origin, object }) => {
                let (by, depth) = (Some(Rc::clone(from)), from.depth + 1);
                process.add(Rc::new(Loaded { path, origin, object, by, depth }), Some(name));
            }
            Search::Missing { foreign } => self.missing(from, name, foreign, severity, by),
        }
    }

    /// What nothing loads that is known: a missing library is one that a plugin's program may have loaded before.
    fn check_the_rest(&mut self) {
        let formats = self.check.formats;
        for (path, format) in formats {
            if self.check.reached.contains(path) || self.entered.contains(path) {
                continue;
            }
            match format {
                Format::Object(object) if object.machine == self.machine => {
                    self.check_alone(path, object);
                }
                Format::Object(object) => {
                    self.is_for_machine(path, object, Severity::Notice, &[]);
                }
                Format::Script(_) | Format::BrokenObject(_) => {
                    self.enter(path, Severity::Warning, &[], None);
                }
                Format::Foreign(_) => {}
            }
        }
    }

    fn check_alone(&mut self, path: &'a [u8], object: &'a Object) {
        let libc = match &object.interpreter {
            Some(interpreter) => {
                self.check_interpreter(path, interpreter, Severity::Warning, &[]);
                Libc::of_loader(interpreter)
            }
            None => self.libc_without_program(object),
        };
        let alone = Rc::new(Loaded { path, origin: directory(path), object, by: None, depth: 0 });
        let mut process = Process::default();
        process.add(Rc::clone(&alone), None);
        for name in &object.needed {
            self.load_library(&mut process, libc, &alone, name, Severity::Warning, &[]);
        }
        self.check_versions(&process, &alone, Severity::Warning, &[]);
    }

    fn libc_without_program(&self, object: &Object) -> Libc {
        let musl = |name: &Vec<u8>| name.starts_with(b"libc.musl-") || name.as_slice() == b"libc.so";
        if object.needed.iter().any(musl) { Libc::Musl } else { Libc::of_root(self.check.rootfs()) }
    }

    fn is_for_machine(&mut self, path: &[u8], object: &Object, severity: Severity, by: &[String]) -> bool {
        if object.machine == self.machine {
            return true;
        }
        let what = format!("is made for {}", object.machine.name());
        self.foreign(path, &what, severity, by);
        false
    }

    fn foreign(&mut self, path: &[u8], what: &str, severity: Severity, by: &[String]) {
        let platform = self.check.question.platform;
        let platform = format!("{}/{}", platform.os, platform.architecture);
        self.check.find(Finding {
            severity,
            rule: Rule::Architecture,
            path: shown(path),
            needs: None,
            explanation: format!("{what}, and the artefact for {platform}"),
            fix: format!("build or fetch it for {platform}"),
            chain: by.to_vec(),
        });
    }

    fn broken(&mut self, path: &[u8], problem: &str, severity: Severity, by: &[String]) {
        self.check.find(Finding {
            severity,
            rule: Rule::Object,
            path: shown(path),
            needs: None,
            explanation: format!("begins like a program and cannot be read as one: {problem}"),
            fix: "build it again, or leave it out of [artefact] files".to_owned(),
            chain: by.to_vec(),
        });
    }

    fn check_interpreter(&mut self, path: &[u8], interpreter: &[u8], severity: Severity, by: &[String]) {
        let name = text(interpreter);
        let found = self.check.rootfs().resolve_file(interpreter);
        if found.is_some_and(|found| matches!(self.check.formats.get(found.path), Some(Format::Object(_)))) {
            return;
        }
        if self.check.has_host() && (name.starts_with("/lib/ld-") || name.starts_with("/lib64/ld-")) {
            return self.check.ask_host(name, None);
        }
        let other = self.elsewhere(name_of(interpreter));
        let other = other.map(|other| format!("; {other} has its name")).unwrap_or_default();
        self.check.find(Finding {
            severity,
            rule: Rule::Interpreter,
            path: shown(path),
            needs: Some(name.clone()),
            explanation: format!("is started by the loader {name}, which is not in the artefact{other}"),
            fix: "take a base that has this loader, or link statically (Rust: --target x86_64-unknown-linux-musl; Go: CGO_ENABLED=0)".to_owned(),
            chain: by.to_vec(),
        });
    }

    fn missing(
        &mut self,
        from: &Loaded<'a>,
        name: &[u8],
        foreign: Option<&[u8]>,
        severity: Severity,
        by: &[String],
    ) {
        let library = text(name);
        let of_runtime =
            self.check.question.runtime.is_some() && SYSTEM_LIBRARIES.contains(&library.as_str());
        if self.check.has_host() && (of_runtime || is_of_every_host(&library)) {
            self.check_runtime(from, &library, severity, by);
            return self.ask_host_for(from, &library);
        }
        let (explanation, fix, milder) = self.explain_missing(&library, name, foreign);
        let mut chain: Vec<String> = by.to_vec();
        let above = from.chain();
        chain.extend(above[..above.len() - 1].iter().map(|path| shown(path)));
        let severity = match severity {
            Severity::Warning if milder => Severity::Notice,
            severity => severity,
        };
        let (rule, path) = (Rule::Library, shown(from.path));
        self.check.find(Finding { severity, rule, path, needs: Some(library), explanation, fix, chain });
    }

    /// Explanation, fix, and whether the library is in the artefact after all, where its user may know of it.
    fn explain_missing(&self, library: &str, name: &[u8], foreign: Option<&[u8]>) -> (String, String, bool) {
        let ignore = ignore_hint(library);
        if let Some(foreign) = foreign {
            return (
                format!("needs {library}, and {} is not for this platform", shown(foreign)),
                "put the library for this platform there".to_owned(),
                false,
            );
        }
        if let Some(other) = self.elsewhere(name) {
            return (
                format!("needs {library}; {other} has that name, but the loader does not look there"),
                format!(
                    "link with -Wl,-rpath,'$ORIGIN/…', or name the directory in LD_LIBRARY_PATH or, before ldconfig \
                     runs, in /etc/ld.so.conf; or, if it is loaded before: {ignore}"
                ),
                true,
            );
        }
        let explanation = format!("needs {library}, which is not in the artefact");
        let fix = if self.check.has_host() {
            format!(
                "put it beside the program and link with -Wl,-rpath,'$ORIGIN', link it statically, or, if every host has it: {ignore}"
            )
        } else {
            format!(
                "add it to [artefact] files or to the base, link it statically, or say why it is not needed: {ignore}"
            )
        };
        (explanation, fix, false)
    }

    /// Something of the name, wherever it lies.
    fn elsewhere(&self, name: &[u8]) -> Option<String> {
        self.by_name.get(name).map(|path| shown(path))
    }

    /// A zip brings no C library: the one of its runtime must be new enough.
    fn check_runtime(&mut self, from: &Loaded<'_>, library: &str, severity: Severity, by: &[String]) {
        let Some(runtime) = self.check.question.runtime else { return };
        let has = Version::of_runtime(runtime);
        let of_it = from.object.versions.iter().filter(|need| !need.weak && text(&need.library) == library);
        let newest = of_it.filter_map(|need| Version::of_symbol(&need.version)).max();
        let Some(wanted) = newest.filter(|wanted| *wanted > has) else { return };
        self.check.find(Finding {
            severity,
            rule: Rule::SymbolVersion,
            path: shown(from.path),
            needs: Some(format!("GLIBC_{wanted}")),
            explanation: format!(
                "needs GLIBC_{wanted} of {library}, and the runtime {} has GLIBC_{has} at most",
                runtime.name
            ),
            fix: format!(
                "build on a system as old as the runtime, or take wheels and packages for manylinux with glibc {has} or older"
            ),
            chain: by.to_vec(),
        });
    }

    fn ask_host_for(&mut self, from: &Loaded<'_>, library: &str) {
        let of_it = from.object.versions.iter().filter(|need| text(&need.library) == library);
        let newest =
            of_it.max_by_key(|need| Version::of_symbol(&need.version)).map(|need| need.version.clone());
        for version in from.object.versions.iter().filter_map(|need| Version::of_symbol(&need.version)) {
            self.check.glibc = self.check.glibc.max(Some(version));
        }
        self.check.ask_host(library.to_owned(), newest);
    }

    /// As the loader does when everything is there: each library must define the versions that are needed of it. One that
    /// defines none at all is taken as it is.
    fn check_versions(
        &mut self,
        process: &Process<'a>,
        loaded: &Loaded<'a>,
        severity: Severity,
        by: &[String],
    ) {
        for need in &loaded.object.versions {
            let Some(library) = process.names.get(need.library.as_slice()) else { continue };
            if severity == Severity::Error {
                self.check.glibc = self.check.glibc.max(Version::of_symbol(&need.version));
            }
            let defines = &library.object.defines;
            if !need.weak && !defines.is_empty() && !defines.contains(&need.version) {
                self.version_missing(loaded, need, library, severity, by);
            }
        }
    }

    fn version_missing(
        &mut self,
        loaded: &Loaded<'a>,
        need: &NeededVersion,
        library: &Loaded<'a>,
        severity: Severity,
        by: &[String],
    ) {
        let newest = library.object.defines.iter().filter_map(|name| Version::of_symbol(name)).max();
        let has = newest
            .map(|version| format!(" has GLIBC_{version} at most"))
            .unwrap_or_else(|| " does not define it".to_owned());
        let wanted = Version::of_symbol(&need.version);
        let systems = wanted.map(systems_with).filter(|systems| !systems.is_empty());
        let fix = match systems {
            Some(systems) => {
                format!("build on a system as old as the base, or take a newer base ({systems})")
            }
            None => "build with the library that the artefact has, or put the newer one into it".to_owned(),
        };
        let mut chain: Vec<String> = by.to_vec();
        let above = loaded.chain();
        chain.extend(above[..above.len() - 1].iter().map(|path| shown(path)));
        self.check.find(Finding {
            severity,
            rule: Rule::SymbolVersion,
            path: shown(loaded.path),
            needs: Some(need.version.clone()),
            explanation: format!(
                "needs {} of {}, and {}{has}",
                need.version,
                text(&need.library),
                shown(library.path)
            ),
            fix,
            chain,
        });
    }
}

/// The objects that are loaded together.
#[derive(Default)]
struct Process<'a> {
    /// By every name under which one is asked for; the second who asks gets what is there.
    names: BTreeMap<&'a [u8], Rc<Loaded<'a>>>,
    paths: BTreeMap<&'a [u8], Rc<Loaded<'a>>>,
    all: Vec<Rc<Loaded<'a>>>,
    ahead: VecDeque<Rc<Loaded<'a>>>,
}

impl<'a> Process<'a> {
    fn add(&mut self, loaded: Rc<Loaded<'a>>, name: Option<&'a [u8]>) {
        let there = self.paths.get(loaded.path).cloned();
        let is_new = there.is_none();
        let loaded = there.unwrap_or(loaded);
        self.names.extend(name.map(|name| (name, Rc::clone(&loaded))));
        if is_new {
            self.paths.insert(loaded.path, Rc::clone(&loaded));
            self.names.extend(loaded.object.soname.as_deref().map(|name| (name, Rc::clone(&loaded))));
            self.all.push(Rc::clone(&loaded));
            self.ahead.push_back(loaded);
        }
    }
}

/// What musl's loader has in itself (ldso/dynlink.c, `load_library`).
fn is_part_of_musl(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"lib") else { return false };
    ["c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet."]
        .iter()
        .any(|part| rest.starts_with(part.as_bytes()))
}

/// The libraries that a Linux host has, whatever it is for: those of the C library itself, and the two of the compiler
/// that everything is built with.
fn is_of_every_host(library: &str) -> bool {
    const NAMES: [&str; 13] = [
        "libc.so.6",
        "libm.so.6",
        "libpthread.so.0",
        "libdl.so.2",
        "librt.so.1",
        "libresolv.so.2",
        "libutil.so.1",
        "libanl.so.1",
        "libnss_files.so.2",
        "libnss_dns.so.2",
        "libgcc_s.so.1",
        "libstdc++.so.6",
        "libc.so",
    ];
    NAMES.contains(&library) || library.starts_with("ld-linux") || library.starts_with("libc.musl-")
}
