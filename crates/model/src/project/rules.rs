//! What must hold in a project file beyond its grammar. Each rule names what to look for in the text, and the problem.

use std::collections::BTreeSet;

use super::written::{File, nearest};
use super::{
    ArtefactSpec, BootCheck, BuildSpec, CACHE_HOME, FileSpec, Kind, NEWEST_FORMAT, VersionSpec, Waiver,
    parse_size, split_base, words,
};
use crate::runtime::Runtime;

/// What to look for in the text, and what is wrong with it.
pub(super) type Broken = (&'static str, String);

pub(super) fn check(file: &File) -> Result<(), Broken> {
    check_format(file.format)?;
    check_artefact(&file.artefact)?;
    file.waiver.iter().try_for_each(check_waiver)?;
    check_build(&file.build)?;
    check_version(&file.version)
}

fn check_format(format: u32) -> Result<(), Broken> {
    match format {
        NEWEST_FORMAT => Ok(()),
        other => Err((
            "format",
            format!("format {other} is not known here (this program writes format {NEWEST_FORMAT})"),
        )),
    }
}

/// The shortest reason of a waiver, in bytes.
const REASON_BYTES_MIN: usize = 10;

fn check_waiver(waiver: &Waiver) -> Result<(), Broken> {
    if waiver.reason.trim().len() >= REASON_BYTES_MIN {
        return Ok(());
    }
    let Waiver { rule, path, .. } = waiver;
    let what = format!(
        "the waiver of {rule} for {path} needs a reason that others understand, of {REASON_BYTES_MIN} characters or more"
    );
    Err(("[[waiver", what))
}

fn check_artefact(artefact: &ArtefactSpec) -> Result<(), Broken> {
    check_taken(artefact)?;
    check_zip(artefact)?;
    check_vm(artefact)?;
    let is_elsewhere = artefact.base.is_some() || artefact.from.is_some() || artefact.image.is_some();
    if artefact.files.is_empty() && !is_elsewhere {
        return Err(("[artefact", "an artefact needs `files = [{ from = \"…\", to = \"/…\" }]`".to_owned()));
    }
    if let Some(base) = &artefact.base {
        if artefact.kind != Kind::Image {
            return Err(("base", "only an image has a base".to_owned()));
        }
        if split_base(base).is_none() {
            let problem = format!("base `{base}` is not pinned: semel lock --update-base {base}");
            return Err(("base", problem));
        }
    }
    if artefact.kind != Kind::Archive && !artefact.needs.is_empty() {
        let kind = artefact.kind.as_str();
        return Err((
            "needs",
            format!("`needs` is for archives; of kind {kind}, it brings what it needs with it"),
        ));
    }
    let has_run_fields = artefact.user.is_some()
        || artefact.workdir.is_some()
        || !artefact.expose.is_empty()
        || !artefact.env.is_empty();
    if artefact.kind != Kind::Image && has_run_fields {
        return Err(("[artefact", "`user`, `workdir`, `expose` and `env` are for images".to_owned()));
    }
    artefact.expose.iter().try_for_each(|port| check_port(port))?;
    artefact.env.iter().try_for_each(|(name, value)| check_constant(name, value))?;
    if !matches!(artefact.kind, Kind::Image | Kind::Archive) && !artefact.compression.is_usual() {
        return Err((
            "compression",
            "only the layers of images and archives have a `compression`".to_owned(),
        ));
    }
    let distinct: BTreeSet<_> = artefact.platforms.iter().collect();
    if distinct.len() != artefact.platforms.len() {
        return Err(("platforms", "`platforms` names one of them twice".to_owned()));
    }
    for file in &artefact.files {
        check_file(file)?;
    }
    check_closure(artefact)?;
    for need in &artefact.needs {
        crate::deployment::Need::parse(need).map_err(|error| ("needs", error.to_string()))?;
    }
    Ok(())
}

/// What only a zip has, and what it has not.
fn check_zip(artefact: &ArtefactSpec) -> Result<(), Broken> {
    if artefact.kind != Kind::Zip {
        return match (&artefact.runtime, &artefact.handler) {
            (Some(_), _) => Err(("runtime", "only a zip has a runtime".to_owned())),
            (_, Some(_)) => Err(("handler", "only a zip has a handler".to_owned())),
            (None, None) => Ok(()),
        };
    }
    if !artefact.entrypoint.is_empty() {
        return Err(("entrypoint", "a zip is started by its runtime: say `handler`".to_owned()));
    }
    let Some(name) = &artefact.runtime else { return Ok(()) };
    let Some(runtime) = Runtime::find(name) else {
        let without_system = name.split('/').next().unwrap_or(name);
        let near = match Runtime::find(without_system) {
            Some(known) => Some(format!("{}/{}", known.name, known.system.as_str())),
            None => nearest(without_system, Runtime::names()).map(str::to_owned),
        };
        let hint = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        return Err(("runtime", format!("runtime `{name}` is not known here{hint}")));
    };
    match &artefact.handler {
        None if runtime.has_handler() => {
            Err(("runtime", format!("the runtime `{name}` calls a function: say which with `handler`")))
        }
        _ => Ok(()),
    }
}

/// What only a virtual machine has, and what it has not.
fn check_vm(artefact: &ArtefactSpec) -> Result<(), Broken> {
    if artefact.kind != Kind::Vm {
        return match (&artefact.image, &artefact.disk) {
            (Some(_), _) => Err(("image", "only a vm has an `image`".to_owned())),
            (_, Some(_)) => Err(("disk", "only a vm has a `disk`".to_owned())),
            (None, None) => Ok(()),
        };
    }
    let Some(image) = &artefact.image else {
        return Err((
            "[artefact",
            "a vm needs `image = \"out/disk.qcow2\"`, which the build leaves".to_owned(),
        ));
    };
    if image.starts_with('/') || image.ends_with('/') || image.split('/').any(|part| part == "..") {
        return Err(("image", format!("`image = \"{image}\"` is not a file inside the source tree")));
    }
    if !artefact.files.is_empty() || !artefact.entrypoint.is_empty() || !artefact.exclude.is_empty() {
        let problem = "a vm is its `image`: `files`, `exclude` and `entrypoint` are for other kinds";
        return Err(("[artefact", problem.to_owned()));
    }
    if let Some(command) = artefact.smoke.iter().find(|command| BootCheck::parse(command).is_none()) {
        return Err((
            "smoke",
            format!("`{command}` is no check of a vm: write \"boot within 90s until 'ready'\""),
        ));
    }
    match artefact.disk.as_ref().and_then(|disk| disk.max_virtual.as_deref()) {
        Some(size) if parse_size(size).is_none() => {
            Err(("disk", format!("`{size}` is no size: write \"20GiB\" or \"500 MB\"")))
        }
        _ => Ok(()),
    }
}

fn check_closure(artefact: &ArtefactSpec) -> Result<(), Broken> {
    if artefact.smoke.iter().any(|command| words(command).is_none_or(|words| words.is_empty())) {
        return Err((
            "smoke",
            "a command of `smoke` needs at least one word, and an end for each quote".to_owned(),
        ));
    }
    if artefact.closure.ignore.iter().any(|ignored| ignored.name.is_empty() || ignored.reason.is_empty()) {
        return Err(("closure", "what is ignored needs a `name` and a `reason`".to_owned()));
    }
    if artefact.closure.roots.iter().any(|root| !root.starts_with('/')) {
        return Err(("closure", "`roots` are absolute paths inside the artefact".to_owned()));
    }
    Ok(())
}

/// An image that the project's own builder writes is taken as it is: nothing else can be said about it here.
fn check_taken(artefact: &ArtefactSpec) -> Result<(), Broken> {
    let Some(from) = &artefact.from else { return Ok(()) };
    let said = [
        ("files", !artefact.files.is_empty()),
        ("base", artefact.base.is_some()),
        ("entrypoint", !artefact.entrypoint.is_empty()),
        ("user", artefact.user.is_some()),
        ("workdir", artefact.workdir.is_some()),
        ("expose", !artefact.expose.is_empty()),
        ("env", !artefact.env.is_empty()),
        ("exclude", !artefact.exclude.is_empty()),
        ("compression", !artefact.compression.is_usual()),
    ];
    if artefact.kind != Kind::Image {
        return Err(("from", "only an image can be taken `from` a builder of the project's own".to_owned()));
    }
    if from.starts_with('/') || from.split('/').any(|part| part == "..") {
        return Err(("from", format!("`from = \"{from}\"` is not a path inside the source tree")));
    }
    match said.iter().find(|(_, said)| *said) {
        Some((key, _)) => {
            let problem =
                format!("`{key}` would change the image that `from` takes as it is: say it to its builder");
            Err((key, problem))
        }
        None => Ok(()),
    }
}

/// image-spec 1.1, config.md, `ExposedPorts`: `port`, `port/tcp` or `port/udp`.
fn check_port(text: &str) -> Result<(), Broken> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match number.parse::<u16>() {
        Ok(1..) if matches!(protocol, "tcp" | "udp") => Ok(()),
        _ => Err(("expose", format!("`{text}` is no port: write \"8080\", \"8080/tcp\" or \"53/udp\""))),
    }
}

/// Words in the name of a variable that differs between environments.
const OF_ENVIRONMENTS: [&str; 22] = [
    "ADDR",
    "ADDRESS",
    "CREDENTIAL",
    "CREDENTIALS",
    "DATABASE",
    "DEBUG",
    "DSN",
    "ENDPOINT",
    "ENVIRONMENT",
    "HOST",
    "KEY",
    "LEVEL",
    "PASSWORD",
    "PASSWD",
    "PORT",
    "REGION",
    "SECRET",
    "STAGE",
    "TOKEN",
    "URI",
    "URL",
    "USERNAME",
];

/// What is in an image is the same everywhere. What looks like configuration is refused here, where it is cheap.
fn check_constant(name: &str, value: &str) -> Result<(), Broken> {
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty();
    if !is_name || name.starts_with("SEMEL_") || value.contains('\0') {
        return Err(("env", format!("`{name}` cannot be set in [artefact] env")));
    }
    let upper = name.to_ascii_uppercase();
    let named = upper.split('_').any(|word| OF_ENVIRONMENTS.contains(&word));
    if named || value.contains("://") {
        return Err((
            "env",
            format!(
                "`{name}` looks like configuration, which differs between environments and must not be in the image: \
                 declare it in [config]; [artefact] env is for constants such as PATH and LANG"
            ),
        ));
    }
    Ok(())
}

fn check_file(file: &FileSpec) -> Result<(), Broken> {
    if !file.to.starts_with('/') || file.to.split('/').any(|part| matches!(part, ".." | ".")) {
        return Err(("to =", format!("`to = \"{}\"` is not an absolute path inside the artefact", file.to)));
    }
    if file.from.starts_with('/') || file.from.split('/').any(|part| part == "..") {
        return Err(("from", format!("`from = \"{}\"` is not a path inside the source tree", file.from)));
    }
    match file.mode.as_deref() {
        None | Some("0644" | "0755") => Ok(()),
        Some(mode) => Err(("mode", format!("mode \"{mode}\" is neither \"0644\" nor \"0755\""))),
    }
}

fn check_version(version: &VersionSpec) -> Result<(), Broken> {
    match version.release.matches('*').count() {
        1 => Ok(()),
        _ => Err((
            "release",
            format!("`release = \"{}\"` needs one `*`, which stands for 1.4", version.release),
        )),
    }
}

fn check_build(build: &BuildSpec) -> Result<(), Broken> {
    if let Some(key) = build.env.keys().find(|key| !is_variable(key)) {
        return Err(("[build", format!("`{key}` cannot be set in [build] env")));
    }
    if let Some(name) = build.secrets.iter().find(|name| !is_variable(name)) {
        return Err(("secrets", format!("`{name}` is no name of a variable that a secret could have")));
    }
    if let Some(name) = build.secrets.iter().find(|name| build.env.contains_key(*name)) {
        return Err(("secrets", format!("`{name}` is in [build] env too, where everybody can read it")));
    }
    if !build.secrets.is_empty() && build.fetch.is_none() {
        return Err(("secrets", "secrets are for `fetch`, and there is none".to_owned()));
    }
    match build.cache.iter().find(|path| !is_cache_path(path)) {
        Some(path) => {
            Err(("cache", format!("`{path}` is not a directory inside the tree, or inside `{CACHE_HOME}/`")))
        }
        None => Ok(()),
    }
}

/// The name of a variable that a project may set. `SEMEL_…` is set by Semel alone.
fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("SEMEL_")
}

fn is_cache_path(path: &str) -> bool {
    path != CACHE_HOME && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
