//! Deploying: the first time, again, with another configuration, with something that is not well.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use semel_model::deployment::{FilesState, HealthState, Plan, RunState};
use semel_model::duration::Span;
use semel_model::pipeline::Health;
use semel_targets::directory::{
    Depth, Generation, Outcome, Progress, Refused, converge, enter, generations, logs,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::place::{Place, Shelf, archive, image, is_alive, layer, other_service, service};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deployment_runs_what_was_desired_and_says_so() {
    let place = Place::new();
    let artefact = service(true);
    let order = place.order(1, &artefact, &[("NAME", "semel"), ("TOKEN", "hunter2")]);
    let told = Mutex::new(Vec::new());
    let outcome =
        place.converge_telling(&order, &Shelf::of(&artefact), &|step| told.lock().unwrap().push(step)).await;
    let Outcome::Succeeded { plan: Plan::Switch, needs, observed, .. } = outcome.unwrap() else {
        panic!("it runs")
    };
    assert!(needs.is_empty());
    assert_eq!(observed.generation, Some(1));
    assert_eq!(observed.key.as_ref(), Some(&order.desired.key));
    assert_eq!(observed.artefact.as_ref(), Some(&order.desired.artefact));
    assert_eq!(observed.config.as_ref(), Some(&order.desired.config));
    assert_eq!(
        (observed.state, observed.health, observed.files),
        (RunState::Running, HealthState::Healthy, FilesState::Intact)
    );
    let steps = [
        Progress::Planned(Plan::Switch),
        Progress::Staged { already: false },
        Progress::Searched { skipped: Vec::new() },
        Progress::Switched(Generation::of(1)),
        Progress::Waiting { within: Span::seconds(10) },
    ];
    assert_eq!(*told.lock().unwrap(), steps);
    assert_eq!(logs::tail(&place.root, 5).unwrap().lines, ["hello from 1.0.1 as semel"]);
    let env = place.root.join("config").join(order.desired.config.hex()).join("env");
    assert_eq!(std::fs::metadata(env).unwrap().permissions().mode() & 0o777, 0o400);
    assert!(!format!("{order:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_gets_its_variables_and_no_others() {
    let place = Place::new();
    let artefact =
        archive(&[("/run", "#!/bin/sh\nenv\nexec sleep 600\n"), ("/app/check", "#!/bin/sh\nexit 0\n")], &[]);
    place.deploy(1, &artefact, &[("NAME", "semel")]).await;
    place.until("it printed its variables", |_| place.app_log().contains("PATH=")).await;
    let log = place.app_log();
    let mut names: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    let expected = [
        "HOME",
        "NAME",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "SEMEL_BUILD",
        "SEMEL_DEPLOYMENT",
        "SEMEL_DIGEST",
        "SEMEL_ENVIRONMENT",
        "SEMEL_VERSION",
    ];
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_again_is_verified_and_changes_nothing() {
    let place = Place::new();
    let artefact = service(true);
    let first = place.deploy(1, &artefact, &[]).await;
    let pid = place.status().await.pid;
    let (order, shelf) = (place.order(1, &artefact, &[]), Shelf::of(&artefact));
    let outcome = place.converge(&order, &shelf).await.unwrap();
    let Outcome::Succeeded { plan: Plan::Nothing, observed, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(observed, first);
    assert_eq!(place.status().await.pid, pid);
    assert!(shelf.fetched.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_is_another_deployment_of_the_same_bytes() {
    let place = Place::new();
    let artefact = service(true);
    let first = place.deploy(1, &artefact, &[("NAME", "one")]).await;
    let pid = place.status().await.pid.unwrap();
    let (order, shelf) = (place.order(2, &artefact, &[("NAME", "two")]), Shelf::of(&artefact));
    let outcome = place.converge(&order, &shelf).await.unwrap();
    let Outcome::Succeeded { plan: Plan::Switch, observed, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(observed.artefact, first.artefact);
    assert_ne!(observed.config, first.config);
    assert!(!shelf.fetched.lock().unwrap().contains(&artefact.layer), "the bytes were there");
    assert!(!is_alive(pid), "the old process is gone");
    assert!(place.app_log().contains("as two"));
    let past = generations(&place.root).unwrap();
    let facts: Vec<_> =
        past.iter().map(|p| (p.deployed.generation.ledger, p.succeeded.is_some(), p.current)).collect();
    assert_eq!(facts, [(2, true, true), (1, true, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_not_well_is_replaced_by_the_last_one_that_was() {
    let mut place = Place::new();
    let good = service(true);
    let before = place.deploy(1, &good, &[]).await;
    place.healthy_within = Span::seconds(1);
    let bad = service(false);
    let outcome = place.converge(&place.order(2, &bad, &[]), &Shelf::of(&bad)).await.unwrap();
    let Outcome::Failed { plan: Plan::Switch, reason, log_tail, restored } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(reason, "the release was not healthy within 1s: check `/app/check`: exit status: 1");
    assert_eq!(restored, Some(Generation::of(1)));
    assert!(log_tail.contains(&"hello from 1.0.2 as ".to_owned()), "{log_tail:?}");
    let now = place.observe(Depth::Full).await;
    assert!(now.same_as(&before), "{now:?}");
    assert_eq!(now.health, HealthState::Healthy);
    let refused = place.converge(&place.order(1, &good, &[]), &Shelf::of(&good)).await.unwrap_err();
    assert!(
        matches!(refused, Refused::Fenced { .. }),
        "what was switched on and back counts as newest: {refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_release_that_is_not_well_leaves_nothing_on() {
    let mut place = Place::new();
    place.healthy_within = Span::seconds(1);
    let bad = service(false);
    let outcome = place.converge(&place.order(1, &bad, &[]), &Shelf::of(&bad)).await.unwrap();
    assert!(matches!(outcome, Outcome::Failed { restored: None, .. }), "{outcome:?}");
    assert_eq!(place.observe(Depth::Full).await.state, RunState::Absent);
    let good = service(true);
    place.deploy(2, &good, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_ends_again_and_again_fails_early() {
    let mut place = Place::new();
    let good = service(true);
    place.deploy(1, &good, &[]).await;
    place.health = None;
    place.healthy_within = Span::seconds(600);
    let bad = archive(&[("/run", "#!/bin/sh\necho going down >&2\nexit 7\n")], &[]);
    let outcome = place.converge(&place.order(2, &bad, &[]), &Shelf::of(&bad)).await.unwrap();
    let Outcome::Failed { reason, log_tail, restored, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, "the release ended 3 times; at last it exited with code 7");
    assert_eq!(log_tail.last().map(String::as_str), Some("going down"));
    assert_eq!(restored, Some(Generation::of(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_a_check_is_well_when_it_stays_up() {
    let mut place = Place::new();
    place.health = None;
    let observed = place.deploy(1, &service(true), &[]).await;
    assert_eq!(observed.health, HealthState::Healthy);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_asked_over_http_with_the_values_filled_in() {
    static STATUS: AtomicU16 = AtomicU16::new(200);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.unwrap_or(0);
            let found =
                String::from_utf8_lossy(&request[..n]).starts_with("GET /healthz?x=semel HTTP/1.1\r\n");
            let status = if found { STATUS.load(Ordering::Relaxed) } else { 404 };
            let _ = stream
                .write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .await;
        }
    });
    let mut place = Place::new();
    place.health = Some(Health::Url("http://127.0.0.1:${PORT}/healthz?x=${NAME}".to_owned()));
    let values = [("PORT", port.as_str()), ("NAME", "semel")];
    place.deploy(1, &service(true), &values).await;
    STATUS.store(503, Ordering::Relaxed);
    assert_eq!(place.observe(Depth::Full).await.health, HealthState::Unhealthy);
    place
        .until("the supervisor sees it as well", |_| {
            let lines = semel_targets::directory::journal(&place.root, None).unwrap();
            lines.last().is_some_and(|line| line.health == HealthState::Unhealthy)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tried_touches_nothing_that_runs() {
    let mut place = Place::new();
    let good = service(true);
    let before = place.deploy(1, &good, &[]).await;
    let cases = [
        (archive(&[("/run", "x")], &["no-such-program >= 3"]), None, "no `no-such-program` on the PATH"),
        (archive(&[("/run", "x")], &[]), Some(Health::Url("http://h/${NOPE}".to_owned())), "names ${NOPE}"),
    ];
    for (generation, (artefact, health, expected)) in (2..).zip(cases) {
        place.health = health;
        let outcome =
            place.converge(&place.order(generation, &artefact, &[]), &Shelf::of(&artefact)).await.unwrap();
        let Outcome::Errored { reason, restored: None } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains(expected), "{reason}");
    }
    let now = place.observe(Depth::Full).await;
    assert_eq!((now.since, now.health), (before.since, HealthState::Healthy));
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_that_are_met_are_recorded() {
    let place = Place::new();
    let artefact = archive(
        &[("/run", "#!/bin/sh\nexec sleep 600\n"), ("/app/check", "#!/bin/sh\n")],
        &["git >= 1", "sh"],
    );
    let mut order = place.order(1, &artefact, &[]);
    let bin = tempfile::tempdir().unwrap();
    for (name, text) in [("git", "#!/bin/sh\necho git version 2.47.3\n"), ("sh", "#!/bin/sh\n")] {
        crate::place::edit_new(&bin.path().join(name), text);
    }
    order.generation = Generation::of(1);
    let mut host = place.host();
    host.path = format!("{}:{}", bin.path().display(), place.path);
    let entered = enter(&place.root).await.unwrap();
    let outcome = converge(&entered, &order, &host, &Shelf::of(&artefact), &|_| {}).await.unwrap();
    let Outcome::Succeeded { needs, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(needs, ["git 2.47.3", "sh"]);
    assert_eq!(generations(&place.root).unwrap()[0].deployed.needs, needs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_generation_and_one_that_stood_for_something_else_are_refused() {
    let place = Place::new();
    let artefact = service(true);
    place.deploy(5, &artefact, &[]).await;
    let lower = place
        .converge(&place.order(4, &artefact, &[("NAME", "x")]), &Shelf::of(&artefact))
        .await
        .unwrap_err();
    assert!(lower.to_string().contains("generation 4 comes after generation 5"), "{lower}");
    let other = place
        .converge(&place.order(5, &artefact, &[("NAME", "x")]), &Shelf::of(&artefact))
        .await
        .unwrap_err();
    assert!(matches!(other, Refused::Taken { .. }), "{other}");
    let mut step = place.order(5, &artefact, &[("NAME", "x")]);
    step.generation.step = 1;
    let outcome = place.converge(&step, &Shelf::of(&artefact)).await.unwrap();
    assert!(
        matches!(outcome, Outcome::Succeeded { .. }),
        "a local step comes after its generation: {outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_is_a_new_generation_of_an_old_release() {
    let place = Place::new();
    let (old, new) = (service(true), other_service("new"));
    place.deploy(1, &old, &[]).await;
    place.deploy(2, &new, &[]).await;
    let (order, shelf) = (place.order(3, &old, &[]), Shelf::of(&old));
    let outcome = place.converge(&order, &shelf).await.unwrap();
    let Outcome::Succeeded { observed, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((observed.generation, observed.artefact), (Some(3), Some(old.digest.clone())));
    assert!(!shelf.fetched.lock().unwrap().contains(&old.layer), "it was still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_generation_needs_any_more_is_removed() {
    let place = Place::new();
    for generation in 1..=7 {
        place
            .deploy(generation, &other_service(&generation.to_string()), &[("NAME", &generation.to_string())])
            .await;
    }
    let count = |dir: &str| std::fs::read_dir(place.root.join(dir)).unwrap().count();
    assert_eq!((count("generations"), count("store"), count("config")), (5, 10, 5));
    let left: Vec<u64> =
        generations(&place.root).unwrap().iter().map(|past| past.deployed.generation.ledger).collect();
    assert_eq!(left, [7, 6, 5, 4, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_entered_a_root_is_alone_there_and_knows_how_far_it_has_come() {
    let place = Place::new();
    let artefact = service(true);
    let entered = enter(&place.root).await.unwrap();
    assert_eq!(entered.newest().unwrap(), None);
    let refused = place.converge(&place.order(7, &artefact, &[]), &Shelf::of(&artefact)).await;
    assert!(matches!(refused, Err(Refused::Busy { .. })), "{refused:?}");
    drop(entered);
    place.deploy(7, &artefact, &[]).await;
    let key = place.order(7, &artefact, &[]).desired.key;
    assert_eq!(enter(&place.root).await.unwrap().newest().unwrap(), Some((Generation::of(7), key)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_take_turns_and_agree() {
    let place = Place::new();
    let artefact = service(true);
    let (order, shelf) = (place.order(1, &artefact, &[]), Shelf::of(&artefact));
    let (one, two) = tokio::join!(place.converge(&order, &shelf), place.converge(&order, &shelf));
    let plan = |outcome| match outcome {
        Ok(Outcome::Succeeded { plan, .. }) => plan,
        other => panic!("{other:?}"),
    };
    let mut plans = [plan(one), plan(two)];
    plans.sort_by_key(|plan| *plan != Plan::Nothing);
    assert_eq!(plans, [Plan::Nothing, Plan::Switch]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_writes_into_itself_is_told_so() {
    let mut place = Place::new();
    let writes = "#!/bin/sh\nchmod 755 . && echo x > written\nexec sleep 600\n";
    let artefact = archive(&[("/run", writes), ("/app/check", "#!/bin/sh\ntest -e written\n")], &[]);
    place.healthy_within = Span::seconds(1);
    let outcome = place.converge(&place.order(1, &artefact, &[]), &Shelf::of(&artefact)).await.unwrap();
    let Outcome::Failed { reason, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.ends_with("is not as it was deployed: files were edited"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_several_layers_runs_where_and_as_it_says() {
    let place = Place::new();
    let run = "#!/bin/sh\necho in $(basename $PWD) with $GREETING $NAME and $1 $(ls $(dirname $0))\nexec sleep 600\n";
    let lower =
        layer(&[("/app/old", ""), ("/app/run", "#!/bin/sh\nexit 1\n"), ("/app/check", "#!/bin/sh\n")]);
    let upper = layer(&[("/app/.wh.old", ""), ("/app/run", run)]);
    let execution = serde_json::json!({
        "Entrypoint": ["/app/run"], "Cmd": ["word"], "WorkingDir": "/app",
        "Env": ["PATH=/nowhere", "GREETING=hello", "NAME=nobody"],
    });
    place.deploy(1, &image(&[lower, upper], &execution), &[("NAME", "semel")]).await;
    place.until("it said where it is", |_| place.app_log().contains('\n')).await;
    assert_eq!(place.app_log().trim(), "in app with hello semel and word check run");
}
