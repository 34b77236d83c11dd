//! The SQL is the one dialect of both databases.

use semel_store::schema::MIGRATIONS;

/// Words that one of the two databases does not know, or reads otherwise.
const FOREIGN: [&str; 14] = [
    "AUTOINCREMENT",
    "SERIAL",
    "INTEGER",
    "DATETIME",
    "TIMESTAMP",
    "JSONB",
    "BLOB",
    "BYTEA",
    "INSERT OR ",
    "REPLACE INTO",
    "IFNULL",
    "GLOB",
    "ROWID",
    "PRAGMA",
];

#[test]
fn statements_are_in_the_one_dialect() {
    let sources = [
        "src/ledger.rs",
        "src/lease.rs",
        "src/lib.rs",
        "src/audit.rs",
        "src/recover.rs",
        "src/schema.rs",
        "src/content.rs",
        "src/draft.rs",
        "src/scrub.rs",
    ];
    let mut texts: Vec<(String, String)> = sources.iter().map(|path| read(path)).collect();
    for item in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/projections")).unwrap() {
        let path = item.unwrap().path();
        texts.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
    }
    for (name, migration) in MIGRATIONS {
        if !name.ends_with(".sqlite") && !name.ends_with(".postgres") {
            texts.push((name.to_owned(), migration.to_owned()));
        }
    }
    for (name, text) in texts {
        for statement in statements(&text) {
            for word in FOREIGN {
                assert!(!statement.to_uppercase().contains(word), "{name}: `{word}` in `{statement}`");
            }
            assert!(!statement.contains(" ? ") && !statement.contains("?,"), "{name}: `?` in `{statement}`");
        }
    }
}

fn read(path: &str) -> (String, String) {
    let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    (path.to_owned(), text)
}

/// Everything that begins like a statement, up to the end of its text.
fn statements(text: &str) -> Vec<String> {
    let begins = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE "];
    let mut found = Vec::new();
    for begin in begins {
        for (at, _) in text.match_indices(begin) {
            let rest = &text[at..];
            let end = rest.find(['"', ';']).unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
        }
    }
    found
}

#[test]
fn released_migrations_are_never_edited() {
    let frozen = [
        ("0001_initial", "7e0bc396fc450ed1"),
        ("0001_immutable.sqlite", "331b89618ba51e3f"),
        ("0001_immutable.postgres", "d1d1750a578407c3"),
        ("0002_repository", "0f8d71af8a5f5a3b"),
        ("0003_turn", "a4f0ad6a6461bff8"),
        ("0004_versions", "1e26624ad30f053b"),
        ("0005_reservation", "937d9a842eaec2aa"),
        ("0006_live_log", "7ec7006a4c4a35b5"),
        ("0007_refused", "f8dbe47cc3d513fa"),
        ("0008_indexes", "8f79b98523b360b9"),
        ("0009_indexes_in_order", "15bf5193134d56de"),
    ];
    let now: Vec<(&str, String)> = MIGRATIONS
        .iter()
        .map(|(name, text)| (*name, semel_model::digest::Digest::of(text.as_bytes()).hex()[..16].to_owned()))
        .collect();
    let frozen: Vec<(&str, String)> =
        frozen.iter().map(|(name, digest)| (*name, (*digest).to_owned())).collect();
    assert_eq!(now, frozen);
}
