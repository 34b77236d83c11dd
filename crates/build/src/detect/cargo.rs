//! Cargo projects.
//!
//! An image holds its program with all that it needs, so the program is linked statically where the host can do that;
//! otherwise the program is proposed as an archive, which makes no such claim.

use std::path::{Path, PathBuf};

use toml::Value;

use super::{DetectError, Look, Recipe};

/// What the machine that builds can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The target triple for statically linked programs, if the C library for them is installed.
    pub static_target: Option<String>,
}

impl Host {
    /// Looks at this machine.
    pub fn look() -> Self {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let multiarch = format!("/usr/lib/{}-linux-gnu/libc.a", std::env::consts::ARCH);
        let places = [multiarch.as_str(), "/usr/lib64/libc.a", "/usr/lib/libc.a"];
        let found = cfg!(target_os = "linux") && places.iter().any(|place| Path::new(place).is_file());
        Self { static_target: found.then_some(triple) }
    }
}

/// Crates that link a library of the host which seldom exists in static form.
const DYNAMIC: [&str; 5] = ["openssl-sys", "pq-sys", "mysqlclient-sys", "libudev-sys", "alsa-sys"];

pub(super) fn recipe(look: &mut Look<'_>, host: &Host) -> Result<Option<Recipe>, DetectError> {
    let Some(text) = look.text("Cargo.toml")? else { return Ok(None) };
    let manifest = parse("Cargo.toml", &text)?;
    let programs = programs(look, &manifest);
    let wanted =
        manifest.get("package").and_then(|package| package.get("default-run")).and_then(Value::as_str);
    let program = programs.iter().find(|one| Some(one.name.as_str()) == wanted).or(programs.first());
    let program = program.ok_or_else(|| DetectError::NoProgram { file: "Cargo.toml".to_owned() })?;

    let lock = if look.has_for_commit("Cargo.lock") { look.text("Cargo.lock")? } else { None };
    let locked = if lock.is_some() { " --locked" } else { "" };
    let own = own_target(look)?;
    let dynamic = lock.as_deref().is_some_and(needs_host_library);
    let linked = match (&own, &host.static_target) {
        (Own::Target(triple), _) => Linked::As(triple.clone()),
        (Own::Nothing, Some(triple)) if !dynamic => Linked::Static(triple.clone()),
        _ => Linked::Dynamic,
    };
    let (target, dir) = match &linked {
        Linked::As(triple) => (String::new(), format!("{triple}/release")),
        Linked::Static(triple) => (format!(" --target {triple}"), format!("{triple}/release")),
        Linked::Dynamic => (String::new(), "release".to_owned()),
    };
    let which = if programs.len() > 1 { format!(" --bin {}", program.name) } else { String::new() };
    let name = &program.name;
    Ok(Some(Recipe {
        fetch: Some(format!("cargo fetch{locked}")),
        run: Some(format!("cargo build --release{locked} --offline{target}{which}")),
        env: matches!(linked, Linked::Static(_))
            .then(|| "RUSTFLAGS = \"-C target-feature=+crt-static\"".to_owned()),
        kind: if matches!(linked, Linked::Dynamic) { "archive" } else { "image" },
        entrypoint: vec![format!("/app/{name}")],
        files: format!("{{ from = \"target/{dir}/{name}\", to = \"/app/{name}\", mode = \"0755\" }}"),
        needs: None,
        source: Some(program.source.clone()),
    }))
}

enum Linked {
    /// As the project's own configuration says.
    As(String),
    Static(String),
    Dynamic,
}

/// What `.cargo/config.toml` of the project says about targets.
enum Own {
    Target(String),
    Flags,
    Nothing,
}

fn own_target(look: &mut Look<'_>) -> Result<Own, DetectError> {
    let Some(text) = look.text(".cargo/config.toml")? else { return Ok(Own::Nothing) };
    let config = parse(".cargo/config.toml", &text)?;
    let build = config.get("build");
    let target = build.and_then(|build| build.get("target")).and_then(Value::as_str);
    let flags = build.is_some_and(|build| build.get("rustflags").is_some()) || config.get("target").is_some();
    Ok(match target {
        Some(triple) => Own::Target(triple.to_owned()),
        None if flags => Own::Flags,
        None => Own::Nothing,
    })
}

fn needs_host_library(lock: &str) -> bool {
    let named = |name: &str| lock.contains(&format!("name = \"{name}\""));
    DYNAMIC.iter().any(|name| named(name)) && !named("openssl-src")
}

struct Program {
    name: String,
    source: PathBuf,
}

/// The programs of the package, else of the workspace's members.
fn programs(look: &mut Look<'_>, manifest: &Value) -> Vec<Program> {
    let mut programs = programs_of(look.dir, manifest);
    if programs.is_empty() {
        for member in members(look.dir, manifest) {
            let text = std::fs::read_to_string(member.join("Cargo.toml")).unwrap_or_default();
            if let Ok(manifest) = parse("Cargo.toml", &text) {
                programs.extend(programs_of(&member, &manifest));
            }
        }
    }
    programs
}

fn programs_of(dir: &Path, manifest: &Value) -> Vec<Program> {
    let Some(package) =
        manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str)
    else {
        return Vec::new();
    };
    let text = |table: &Value, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    let listed = manifest.get("bin").and_then(Value::as_array).into_iter().flatten();
    let mut programs: Vec<Program> = listed
        .filter_map(|bin| {
            let name = text(bin, "name")?;
            let path = text(bin, "path").unwrap_or_else(|| "src/main.rs".to_owned());
            Some(Program { name, source: dir.join(path) })
        })
        .collect();
    let main = dir.join("src/main.rs");
    if main.is_file() && !programs.iter().any(|program| program.source == main) {
        programs.insert(0, Program { name: package.to_owned(), source: main });
    }
    let more =
        std::fs::read_dir(dir.join("src/bin")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut more: Vec<PathBuf> =
        more.filter(|path| path.extension().is_some_and(|end| end == "rs")).collect();
    more.sort();
    for source in more {
        let name = source.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if !programs.iter().any(|program| program.name == name) {
            programs.push(Program { name, source });
        }
    }
    programs
}

/// `members = ["a", "crates/*"]`.
fn members(dir: &Path, manifest: &Value) -> Vec<PathBuf> {
    let listed =
        manifest.get("workspace").and_then(|workspace| workspace.get("members")).and_then(Value::as_array);
    let mut members = Vec::new();
    for member in listed.into_iter().flatten().filter_map(Value::as_str) {
        match member.strip_suffix("/*") {
            None => members.push(dir.join(member)),
            Some(above) => {
                let entries = std::fs::read_dir(dir.join(above)).into_iter().flatten().flatten();
                let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
                found.sort();
                members.extend(found);
            }
        }
    }
    members
}

pub(super) fn parse(file: &str, text: &str) -> Result<Value, DetectError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| DetectError::Malformed {
        file: file.to_owned(),
        problem: error.message().to_owned(),
    })?;
    Ok(Value::Table(table))
}
