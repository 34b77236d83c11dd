//! Several servers on one store, whose tables are in PostgreSQL: one answer, whoever is asked, and nothing lost with one of
//! them.

use std::sync::mpsc;

use semel_model::digest::Digest;
use semel_oci::manifest::EncodedManifest;

use crate::cluster::Cluster;
use crate::environment::{Serving, TestEnvironment};
use crate::http::{self, Answer};
use crate::races::{at_once, manifest, one_built_it, push_blob, words};

const SERVERS: usize = 4;

/// Servers on one new store, with a blob that manifests may name.
fn servers(environment: &mut TestEnvironment, database: &str) -> Option<Vec<Serving>> {
    let cluster = Cluster::get()?;
    cluster.create(database);
    environment.keep_tables_in(cluster.url(database));
    let servers: Vec<Serving> = (0..SERVERS).map(|_| environment.serve()).collect();
    push_blob(&servers[0].address, b"{}");
    Some(servers)
}

#[test]
fn of_many_pushes_over_all_servers_one_gets_the_version() {
    let mut environment = TestEnvironment::empty();
    let Some(servers) = servers(&mut environment, "pushes") else { return };
    let pushed: Vec<(EncodedManifest, Answer)> = std::thread::scope(|scope| {
        let push = |at: usize| {
            let (manifest, server) = (manifest(&at.to_string()), &servers[at % SERVERS]);
            scope.spawn(move || {
                let answer = ask(server, "PUT", "/v2/shop/api/manifests/1.0.0", Some(&manifest));
                (manifest, answer)
            })
        };
        let running: Vec<_> = (0..100).map(push).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let winners: Vec<_> = pushed.iter().filter(|(_, answer)| answer.status == 201).collect();
    assert_eq!(winners.len(), 1, "one push is the first");
    let bound = &winners[0].0.descriptor.digest;
    for (_, answer) in pushed.iter().filter(|(_, answer)| answer.status != 201) {
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_eq!(answer.json()["errors"][0]["detail"]["bound"], bound.as_str(), "{answer:?}");
    }
    for server in &servers {
        assert_eq!(Digest::of(&ask(server, "GET", "/v2/shop/api/manifests/1.0.0", None).body), *bound);
    }
    environment.ok(&["audit", "verify"]);
}

#[test]
fn what_one_server_acknowledged_every_other_one_answers_at_once() {
    let mut environment = TestEnvironment::empty();
    let Some(servers) = servers(&mut environment, "reads") else { return };
    for at in 0..24 {
        let manifest = manifest(&at.to_string());
        let version = format!("/v2/shop/api/manifests/1.0.{at}");
        let channel = "/v2/shop/api/manifests/latest".to_owned();
        for path in [&version, &channel] {
            for server in &servers {
                // What a server answered before must not be what it answers afterwards.
                ask(server, "GET", path, None);
            }
            assert_eq!(ask(&servers[at % SERVERS], "PUT", path, Some(&manifest)).status, 201);
            for server in &servers {
                assert_eq!(ask(server, "GET", path, None).body, manifest.bytes, "{path}");
            }
        }
    }
    environment.ok(&["audit", "verify"]);
}

#[test]
fn a_killed_server_takes_nothing_with_it_that_it_acknowledged() {
    let mut environment = TestEnvironment::empty();
    let Some(mut servers) = servers(&mut environment, "killed") else { return };
    let doomed = servers.pop().unwrap();
    let address = doomed.address.clone();
    let (said, heard) = mpsc::channel();
    let pushes = |address: String, name: String, said: mpsc::Sender<(String, Digest)>| {
        move || {
            for at in 0..60 {
                let manifest = manifest(&format!("{name} {at}"));
                let path = format!("/v2/shop/api/manifests/{name}.0.{at}");
                match try_ask(&address, "PUT", &path, Some(&manifest)) {
                    Ok(answer) if answer.status == 201 => {
                        said.send((path, manifest.descriptor.digest.clone())).unwrap();
                    }
                    Ok(answer) => panic!("{path}: {answer:?}"),
                    // The server was killed.
                    Err(_) => return,
                }
            }
        }
    };
    let mut acknowledged = Vec::new();
    std::thread::scope(|scope| {
        for (at, server) in servers.iter().enumerate() {
            scope.spawn(pushes(server.address.clone(), at.to_string(), said.clone()));
        }
        scope.spawn(pushes(address, "9".to_owned(), said));
        let mut doomed = Some(doomed);
        for (path, digest) in heard {
            acknowledged.push((path, digest));
            let of_doomed = acknowledged.iter().filter(|(path, _)| path.contains("/9.0.")).count();
            if of_doomed >= 10 {
                drop(doomed.take());
            }
        }
    });
    assert!(acknowledged.len() >= 60 * (SERVERS - 1) + 10, "the others went on: {}", acknowledged.len());
    for (at, (path, digest)) in acknowledged.iter().enumerate() {
        assert_eq!(Digest::of(&ask(&servers[at % servers.len()], "GET", path, None).body), *digest, "{path}");
    }
    environment.ok(&["audit", "verify"]);
}

#[test]
fn while_the_database_is_away_clients_are_told_to_come_back() {
    let mut environment = TestEnvironment::empty();
    let Some(servers) = servers(&mut environment, "away") else { return };
    Cluster::get().unwrap().drop("away");
    for server in &servers {
        let answer = ask(server, "PUT", "/v2/shop/api/manifests/1.0.0", Some(&manifest("late")));
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{answer:?}");
    }
    let url = format!("http://{}", servers[0].address);
    let asked = environment.semel(&["--server", &url, "versions", "-c", "shop/api"]);
    assert_eq!(asked.code, 75, "{asked:?}");
}

#[test]
fn builds_through_all_servers_make_one_artefact() {
    let mut environment = TestEnvironment::project();
    environment.edit("semel.toml", "[artefact]", "[build]\nrun = \"sleep 0.3\"\n\n[artefact]");
    environment.commit("feat: take a moment");
    let Some(servers) = servers(&mut environment, "builds") else { return };
    let urls: Vec<String> = servers.iter().map(|server| format!("http://{}", server.address)).collect();
    let builds: Vec<_> =
        (0..12).map(|at| words(&["--json", "--server", &urls[at % SERVERS], "build"])).collect();
    let ended = at_once(&environment, &builds);
    one_built_it(&ended);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn the_database_of_a_store_is_named_and_its_password_is_not() {
    let mut environment = TestEnvironment::empty();
    let Some(cluster) = Cluster::get() else { return };
    cluster.create("named");
    let url = cluster.url("named");
    let argument =
        environment.semel(&["audit", "verify", "--database", &url.replace("postgres@", "postgres:geheim@")]);
    assert_eq!(argument.code, 2, "{argument:?}");
    environment.ok(&["audit", "verify", "--database", &url]);
    let unnamed = environment.semel(&["audit", "verify"]);
    assert_eq!(unnamed.code, 2, "{unnamed:?}");
    assert!(unnamed.stderr.contains("hint: SEMEL_DATABASE=postgres://USER@HOST/NAME"), "{unnamed:?}");
    environment.write("database", &url.replace("postgres@", "postgres:geheim@"));
    let with_file = |environment: &TestEnvironment| {
        let mut command = environment.command(&["audit", "verify"]);
        command.env("SEMEL_DATABASE_FILE", "database");
        crate::environment::finish(command, "")
    };
    let open = with_file(&environment);
    assert_eq!(open.code, 2, "a file that everybody can read: {open:?}");
    crate::environment::make_private(&environment.dir().join("database"));
    assert_eq!(with_file(&environment).code, 0);
    environment.keep_tables_in(url.replace("postgres@", "postgres:geheim@").replace("/named", "/nowhere"));
    let missing = environment.semel(&["audit", "verify"]);
    assert_eq!(missing.code, 3, "{missing:?}");
    for said in [argument, open, missing] {
        assert!(!format!("{said:?}").contains("geheim"), "{said:?}");
    }
}

fn ask(server: &Serving, method: &str, path: &str, manifest: Option<&EncodedManifest>) -> Answer {
    try_ask(&server.address, method, path, manifest).unwrap()
}

fn try_ask(
    address: &str,
    method: &str,
    path: &str,
    manifest: Option<&EncodedManifest>,
) -> std::io::Result<Answer> {
    let body = manifest.map_or(b"".as_slice(), |manifest| &manifest.bytes);
    let headers = manifest.map(|manifest| ("content-type", manifest.descriptor.media_type.as_str()));
    http::send(address, method, path, headers.as_slice(), body)
}
