//! npm projects: an archive of the files and their `node_modules`; the host has Node.js.
//!
//! `node` in the entrypoint is a bare word: it is found on the host's `PATH`, and `needs` says so.

use serde_json::Value;

use super::{DetectError, Look, Recipe, everything};

pub(super) fn recipe(look: &mut Look<'_>) -> Result<Option<Recipe>, DetectError> {
    let Some(text) = look.text("package.json")? else { return Ok(None) };
    let manifest: Value = serde_json::from_str(&text).map_err(|error| DetectError::Malformed {
        file: "package.json".to_owned(),
        problem: error.to_string(),
    })?;
    let script = |name: &str| manifest.pointer(&format!("/scripts/{name}")).and_then(Value::as_str);
    let entrypoint = start(look, script("start"), manifest.get("main").and_then(Value::as_str));
    let entrypoint = entrypoint.ok_or_else(|| DetectError::NoProgram { file: "package.json".to_owned() })?;
    let builds = script("build").is_some();
    let has = |key: &str| manifest.get(key).and_then(Value::as_object).is_some_and(|table| !table.is_empty());
    let installs = has("dependencies") || has("optionalDependencies") || (builds && has("devDependencies"));
    let source =
        entrypoint.iter().find_map(|word| word.strip_prefix("/app/")).map(|path| look.dir.join(path));
    Ok(Some(Recipe {
        fetch: installs.then(|| install(look, builds)),
        run: builds.then(|| "npm run build".to_owned()),
        env: None,
        kind: "archive",
        entrypoint,
        files: everything(),
        needs: Some(node(manifest.pointer("/engines/node").and_then(Value::as_str))),
        source,
    }))
}

fn install(look: &Look<'_>, builds: bool) -> String {
    let all = if builds { "" } else { " --omit=dev" };
    let how = if look.has_for_commit("package-lock.json") { "ci" } else { "install --no-package-lock" };
    format!("npm {how} --ignore-scripts --no-audit --no-fund{all}")
}

/// What `npm start` runs, else the main file.
fn start(look: &Look<'_>, script: Option<&str>, main: Option<&str>) -> Option<Vec<String>> {
    let words: Vec<&str> = script.map(|script| script.split_whitespace().collect()).unwrap_or_default();
    let is_plain =
        |word: &&str| !word.contains(['&', '|', ';', '$', '<', '>', '"', '\'', '`', '=', '*', '(']);
    if !words.is_empty() && words.iter().all(is_plain) {
        let inside = |word: &&str| {
            let path = word.trim_start_matches("./");
            let file = [path.to_owned(), format!("{path}.js")].into_iter().find(|path| look.has(path));
            file.map_or_else(|| (*word).to_owned(), |path| format!("/app/{path}"))
        };
        let program = match words[0] {
            "node" => None,
            tool => Some(format!("/app/node_modules/.bin/{tool}")),
        };
        let arguments = words[1..].iter().map(inside);
        return Some(std::iter::once("node".to_owned()).chain(program).chain(arguments).collect());
    }
    let usual = ["server.js", "index.js", "app.js", "main.js", "src/server.js", "src/index.js"];
    let main = main.map(|main| main.trim_start_matches("./"));
    let file = main.into_iter().chain(usual).find(|file| look.has(file))?;
    Some(vec!["node".to_owned(), format!("/app/{file}")])
}

/// `>=20.11` → `node >= 20.11`.
fn node(engines: Option<&str>) -> String {
    let digits = engines.map(|text| text.trim_start_matches(|c: char| !c.is_ascii_digit()));
    let version: Option<String> =
        digits.map(|text| text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect());
    match version.as_deref().map(|version| version.trim_end_matches('.')) {
        Some(version) if !version.is_empty() => format!("node >= {version}"),
        _ => "node".to_owned(),
    }
}
