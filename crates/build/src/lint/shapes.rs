//! Shapes: files that belong to one environment, and values for keys of the contract.

use std::collections::BTreeSet;

use semel_model::config::Contract;

use super::finding::{Finding, Place, Severity, is_example};
use super::secrets::is_placeholder;

/// Names of environments that people use, beside those of the project.
const USUAL: &[&str] = &[
    "dev",
    "development",
    "test",
    "testing",
    "qa",
    "uat",
    "stage",
    "staging",
    "preprod",
    "preview",
    "prod",
    "production",
    "live",
];
/// Formats in which configuration is written.
const FORMATS: &[&str] = &[
    "yaml",
    "yml",
    "json",
    "toml",
    "ini",
    "cfg",
    "conf",
    "properties",
    "env",
    "xml",
    "tfvars",
    "js",
    "ts",
    "py",
    "rb",
];
/// What a file is called that holds an example.
const EXAMPLES: &[&str] =
    &["example", "sample", "template", "dist", "defaults", "default", "tmpl", "tpl", "schema"];

/// Files that hold credentials by their nature: end of the path, and what it is.
const CREDENTIALS: &[(&str, &str)] = &[
    ("/.aws/credentials", "credentials of AWS"),
    ("/.docker/config.json", "credentials of container registries"),
    ("/.git-credentials", "credentials of git"),
    ("/.netrc", "passwords for hosts"),
    ("/.pgpass", "passwords of PostgreSQL"),
    ("/.pypirc", "credentials of PyPI"),
    ("/.kube/config", "credentials of Kubernetes"),
    ("/id_rsa", "a private SSH key"),
    ("/id_ecdsa", "a private SSH key"),
    ("/id_ed25519", "a private SSH key"),
    (".tfstate", "the state of Terraform, which holds secrets in the clear"),
    (".kdbx", "a database of passwords"),
];

/// What shapes are looked for.
#[derive(Debug)]
pub(super) struct Shapes {
    environments: BTreeSet<String>,
    /// The keys of the contract.
    keys: BTreeSet<String>,
}

impl Shapes {
    pub(super) fn new(contract: &Contract, environments: &[&str]) -> Self {
        let named = environments.iter().chain(USUAL).map(|name| (*name).to_owned()).collect();
        Self { environments: named, keys: contract.0.keys().map(|key| key.as_str().to_owned()).collect() }
    }

    /// What the name of a file gives away.
    pub(super) fn name(&self, path: &str) -> Option<Finding> {
        let lower = path.to_ascii_lowercase();
        let name = lower.rsplit('/').next().unwrap_or(&lower);
        let severity = if is_example(path) { Severity::Warning } else { Severity::Error };
        let finding = |rule: &str, what: String, fix: &str| {
            let (rule, path, fix) = (rule.to_owned(), path.to_owned(), fix.to_owned());
            Some(Finding { severity, rule, path, place: None, layer: None, what, fix })
        };
        if let Some((_, what)) = CREDENTIALS.iter().find(|(end, _)| lower.ends_with(end)) {
            return finding("shape/credentials-file", (*what).to_owned(), "leave it out of `files`");
        }
        if lower.split('/').any(|part| part == ".git") {
            return (name == "head").then(|| {
                finding(
                    "shape/git-directory",
                    "the repository itself, with its whole history".to_owned(),
                    "leave `.git` out of `files`",
                )
            })?;
        }
        let parts: Vec<&str> = name.split(['.', '-', '_']).filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| EXAMPLES.contains(part)) {
            return None;
        }
        if name == ".env" || name.starts_with(".env.") {
            return finding(
                "shape/env-file",
                "variables of one environment".to_owned(),
                "declare their names in [config] and give their values to each environment",
            );
        }
        let (_, format) = name.rsplit_once('.')?;
        let [first, .., environment, _] = parts.as_slice() else { return None };
        if !self.environments.contains(*environment) {
            return None;
        }
        // `config.test.js` tests what reads the configuration.
        let is_test = environment.starts_with("test") && matches!(format, "js" | "ts" | "py" | "rb");
        let configures = !is_test
            && FORMATS.contains(&format)
            && matches!(
                *first,
                "config"
                    | "settings"
                    | "appsettings"
                    | "application"
                    | "values"
                    | "environment"
                    | "database"
                    | "secrets"
            );
        if !configures {
            return None;
        }
        finding(
            "shape/environment-file",
            format!("configuration of the environment `{environment}`"),
            "keep it outside: `[environment.…] values = \"…\"` names a file that is no part of the artefact",
        )
    }

    /// Values for keys of the contract in a text.
    pub(super) fn text(&self, path: &str, text: &[u8]) -> Vec<Finding> {
        if self.keys.is_empty() || is_example(path) {
            return Vec::new();
        }
        let lines = text.split(|byte| *byte == b'\n').zip(1..);
        lines.filter_map(|(line, number)| self.line(path, line, number)).collect()
    }

    /// `KEY=value`, `export KEY="value"`, `KEY: value`, `"KEY": "value"`.
    fn line(&self, path: &str, line: &[u8], number: u64) -> Option<Finding> {
        let at = line.iter().position(|byte| matches!(byte, b'=' | b':'))?;
        let name = std::str::from_utf8(&line[..at]).ok()?.trim();
        let name = name.strip_prefix("export ").or_else(|| name.strip_prefix("ENV ")).unwrap_or(name);
        let key = self.keys.get(name.trim_matches(['"', '\'', ' ']))?;
        let value = line[at + 1..].trim_ascii();
        let value = value.strip_suffix(b",").unwrap_or(value);
        let bare = std::str::from_utf8(value).ok()?.trim_matches(['"', '\'']);
        let is_code = bare.contains(['(', ';', '{']);
        if bare.is_empty() || is_code || is_placeholder(bare.as_bytes()) {
            return None;
        }
        Some(Finding {
            severity: Severity::Error,
            rule: "shape/contract-value".to_owned(),
            path: path.to_owned(),
            place: Some(Place::Line(number)),
            layer: None,
            what: format!("a value for `{key}`, which the contract leaves to the environment"),
            fix: format!(
                "take it out; a value that holds everywhere is the contract's: {key} = {{ default = … }}"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use semel_model::project::Project;

    use super::*;

    fn shapes() -> Shapes {
        let text = "format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\nfiles = [{ from = \"a\", to = \"/a\" }]\n[config]\nDATABASE_URL = { type = \"url\", secret = true }\n";
        let project = Project::parse("semel.toml", text).unwrap();
        Shapes::new(&project.definition.config, &["factory"])
    }

    #[test]
    fn names_give_away_what_belongs_to_an_environment() {
        for (path, rule) in [
            ("/app/.env", Some("shape/env-file")),
            ("/app/.env.production", Some("shape/env-file")),
            ("/app/.env.example", None),
            ("/app/config.production.yaml", Some("shape/environment-file")),
            ("/app/config.factory.toml", Some("shape/environment-file")),
            ("/app/appsettings.Production.json", Some("shape/environment-file")),
            ("/app/application-prod.yml", Some("shape/environment-file")),
            ("/app/application.yml", None),
            ("/app/react.production.min.js", None),
            ("/app/test/config.js", None),
            ("/app/config.test.ts", None),
            ("/app/config-testing-utils.js", None),
            ("/app/config", None),
            ("/app/--.", None),
            ("/app/config.", None),
            ("/srv/.aws/credentials", Some("shape/credentials-file")),
            ("/srv/.ssh/id_ed25519", Some("shape/credentials-file")),
            ("/srv/.ssh/id_ed25519.pub", None),
            ("/app/.git/HEAD", Some("shape/git-directory")),
            ("/app/.git/config", None),
        ] {
            assert_eq!(shapes().name(path).map(|finding| finding.rule).as_deref(), rule, "{path}");
        }
    }

    #[test]
    fn values_for_keys_of_the_contract_are_found_and_references_are_not() {
        for (line, found) in [
            ("DATABASE_URL=postgres://db.shop.net/shop", true),
            ("export DATABASE_URL=\"postgres://db.shop.net/shop\"", true),
            ("  \"DATABASE_URL\": \"postgres://db.shop.net/shop\",", true),
            ("DATABASE_URL=", false),
            ("DATABASE_URL=${DATABASE_URL}", false),
            ("DATABASE_URL = os.environ[\"DATABASE_URL\"]", false),
            ("OTHER=postgres://db.shop.net/shop", false),
        ] {
            let findings = shapes().text("/app/start.sh", line.as_bytes());
            assert_eq!(findings.len(), usize::from(found), "{line}: {findings:?}");
        }
    }
}
