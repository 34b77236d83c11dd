//! Values of the environment inside an artefact.

use std::path::PathBuf;
use std::sync::Mutex;

use semel_model::deployment::RunState;
use semel_targets::directory::{Depth, Generation, Outcome, Progress, WhenFound, generations};

use crate::place::{Artefact, Place, STAYS, Shelf, archive, image, layer, service};

const TOKEN: &str = "correct-horse-battery";
/// `TOKEN` in base64, behind two other bytes.
const ENCODED: &str = "LTpjb3JyZWN0LWhvcnNlLWJhdHRlcnk6";

fn with_note(note: &str) -> Artefact {
    archive(&[("/app/run", STAYS), ("/app/check", "#!/bin/sh\nexit 0\n"), ("/app/etc/note", note)], &[])
}

/// Deploys with a value for `TOKEN`.
async fn deploy(place: &Place, generation: u64, artefact: &Artefact, when: WhenFound) -> Outcome {
    let mut order = place.order(generation, artefact, &[("TOKEN", TOKEN), ("NAME", "semel")]);
    order.sought = ["TOKEN", "NAME"].map(|key| (key.parse().unwrap(), when)).into();
    place.converge(&order, &Shelf::of(artefact)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_carries_a_secret_of_its_environment_is_not_switched_on() {
    let place = Place::new();
    place.deploy(1, &service(true), &[]).await;
    let before = place.observe(Depth::Full).await;
    for (generation, note, form) in
        [(2, format!("token = {TOKEN}"), "as it is"), (3, format!("auth = {ENCODED}"), "in base64")]
    {
        let outcome = deploy(&place, generation, &with_note(&note), WhenFound::Refuse).await;
        let Outcome::Refused { reason } = outcome else { panic!("{outcome:?}") };
        let expected =
            format!("the artefact carries a secret of dev: the value of TOKEN {form} in /app/etc/note");
        assert_eq!(reason, expected);
        assert!(place.observe(Depth::Full).await.same_as(&before), "what ran there runs on");
    }
    let laid_out: Vec<_> = generations(&place.root).unwrap().iter().map(|p| p.deployed.generation).collect();
    assert_eq!(laid_out, [Generation::of(1)]);
    let repaired = deploy(&place, 4, &with_note("token = $TOKEN"), WhenFound::Refuse).await;
    assert!(
        matches!(repaired, Outcome::Succeeded { ref warnings, .. } if warnings.is_empty()),
        "{repaired:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_value_is_a_warning_and_runs() {
    let place = Place::new();
    let outcome = deploy(&place, 1, &with_note(TOKEN), WhenFound::Warn).await;
    let Outcome::Succeeded { warnings, observed, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        warnings,
        ["the artefact carries a value of dev: the value of TOKEN as it is in /app/etc/note"]
    );
    assert_eq!(observed.state, RunState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_found_behind_any_number_of_plain_values() {
    let place = Place::new();
    let names: Vec<String> = (100..200).map(|number| format!("/app/etc/{number}")).collect();
    let mut files: Vec<(&str, &str)> = vec![("/app/run", STAYS), ("/app/check", "#!/bin/sh\nexit 0\n")];
    files.extend(names.iter().map(|name| (name.as_str(), "shop.example.net")));
    files.push(("/app/etc/last", TOKEN));
    let artefact = archive(&files, &[]);
    let mut order = place.order(1, &artefact, &[("TOKEN", TOKEN), ("PLACE", "shop.example.net")]);
    order.sought = [("TOKEN", WhenFound::Refuse), ("PLACE", WhenFound::Warn)]
        .map(|(k, when)| (k.parse().unwrap(), when))
        .into();
    let outcome = place.converge(&order, &Shelf::of(&artefact)).await.unwrap();
    let Outcome::Refused { reason } = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, "the artefact carries a secret of dev: the value of TOKEN as it is in /app/etc/last");
    order.sought.insert("TOKEN".parse().unwrap(), WhenFound::Warn);
    let outcome = place.converge(&order, &Shelf::of(&artefact)).await.unwrap();
    let Outcome::Succeeded { warnings, .. } = outcome else { panic!("{outcome:?}") };
    assert!(warnings[0].ends_with(", and in 96 more places"), "of 101 five are named: {warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variables_of_an_image_are_searched_too() {
    let place = Place::new();
    let files = layer(&[("/app/run", STAYS), ("/app/check", "#!/bin/sh\nexit 0\n")]);
    let execution = serde_json::json!({ "Entrypoint": ["/app/run"], "Env": [format!("OLD_TOKEN={TOKEN}")] });
    let outcome = deploy(&place, 1, &image(&[files], &execution), WhenFound::Refuse).await;
    let Outcome::Refused { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.ends_with("the value of TOKEN as it is in configuration"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artefact_is_searched_once_for_a_configuration_and_no_value_is_kept_with_what_was_found() {
    let place = Place::new();
    let artefact = with_note(TOKEN);
    let told = Mutex::new(Vec::new());
    let mut order = place.order(1, &artefact, &[("TOKEN", TOKEN), ("PORT", "8080")]);
    order.sought = ["TOKEN", "PORT"].map(|key| (key.parse().unwrap(), WhenFound::Refuse)).into();
    let tell = |step| told.lock().unwrap().push(step);
    place.converge_telling(&order, &Shelf::of(&artefact), &tell).await.unwrap();
    let skipped = vec!["PORT".parse().unwrap()];
    assert!(told.lock().unwrap().contains(&Progress::Searched { skipped }));
    let record = record(&place, &order.desired.config);
    let kept = std::fs::read_to_string(&record).unwrap();
    assert!(kept.contains("/app/etc/note") && !kept.contains(TOKEN), "{kept}");
    std::fs::remove_file(&record).unwrap();
    std::fs::write(&record, kept.replace("/app/etc/note", "/as/remembered")).unwrap();
    let Outcome::Refused { reason } = place.converge(&order, &Shelf::of(&artefact)).await.unwrap() else {
        panic!("it is refused again")
    };
    assert!(reason.ends_with("/as/remembered"), "{reason}");
}

fn record(place: &Place, config: &semel_model::digest::Digest) -> PathBuf {
    let dir = place.root.join("config").join(config.hex());
    let mut found = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.to_string_lossy().contains("searched-")).unwrap()
}
