//! Python projects: an archive of the files, with what they import beside them; the host has Python.
//!
//! Packages are installed next to the program, because that is where Python looks first, without any variable.

use toml::Value;

use super::{DetectError, Look, Recipe, cargo, everything};

const PROGRAMS: [&str; 6] = ["main.py", "app.py", "server.py", "run.py", "wsgi.py", "__main__.py"];
/// `-mpip` in one word: after each `-m pip` pyenv writes beside itself, which no build may.
const INSTALL: &str =
    "python3 -mpip install --disable-pip-version-check --no-cache-dir --no-compile --target .";

pub(super) fn recipe(look: &mut Look<'_>) -> Result<Option<Recipe>, DetectError> {
    let manifest =
        look.text("pyproject.toml")?.map(|text| cargo::parse("pyproject.toml", &text)).transpose()?;
    let requirements = look.text("requirements.txt")?;
    let program = PROGRAMS.into_iter().find(|name| look.has(name));
    if manifest.is_none() && requirements.is_none() && program.is_none() {
        return Ok(None);
    }
    let program = program.ok_or_else(|| DetectError::NoProgram { file: look.looked_at[0].clone() })?;
    look.looked_at.push(program.to_owned());
    let project = manifest.as_ref().and_then(|manifest| manifest.get("project"));
    let names = project.and_then(|project| project.get("dependencies")).and_then(Value::as_array);
    let names: Vec<&str> = names.into_iter().flatten().filter_map(Value::as_str).collect();
    let named =
        |text: &String| text.lines().any(|line| !matches!(line.trim().chars().next(), None | Some('#')));
    let fetch = match requirements.filter(named) {
        Some(_) => Some(format!("{INSTALL} -r requirements.txt")),
        None if names.is_empty() => None,
        None => {
            Some(format!("{INSTALL} {}", names.iter().map(|name| shell(name)).collect::<Vec<_>>().join(" ")))
        }
    };
    let requires = project.and_then(|project| project.get("requires-python")).and_then(Value::as_str);
    Ok(Some(Recipe {
        fetch,
        kind: "archive",
        entrypoint: vec!["python3".to_owned(), format!("/app/{program}")],
        files: everything(),
        needs: Some(python(requires)),
        source: Some(look.dir.join(program)),
        ..Recipe::default()
    }))
}

/// `>=3.10,<4` → `python3 >= 3.10`.
fn python(requires: Option<&str>) -> String {
    let at_least =
        requires.into_iter().flat_map(|text| text.split(',')).find_map(|part| part.trim().strip_prefix(">="));
    at_least.map_or_else(|| "python3".to_owned(), |version| format!("python3 >= {}", version.trim()))
}

fn shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
