//! What every client does with a registry, and what it gets.

use serde_json::json;

use super::{Shop, succeeded};
use crate::environment::Ran;

/// Somebody else's program.
pub(super) trait Client {
    /// Makes an image of its own; another label makes another one.
    fn make(&self, label: &str);

    /// Pushes what was made.
    fn push(&self, label: &str, reference: &str) -> Ran;

    /// Pulls into an empty place, and gives the digest that the client found.
    fn pull(&self, reference: &str) -> String;
}

/// Push, pull, repeat; a version stays, a channel moves. Gives the digest of version 1.4.2.
pub(super) fn tell(shop: &Shop, client: &impl Client) -> String {
    for label in ["first", "second"] {
        client.make(label);
    }
    let push = |label: &str, tag: &str| {
        succeeded(&format!("{label} as {tag}"), client.push(label, &shop.reference(tag)))
    };
    push("first", "1.4.2");
    let digest = shop.digest("1.4.2");
    push("first", "1.4.2");
    assert_eq!(shop.sent("1.4.2"), json!({"201": 2, "409": 0, "all": 2}), "the same again is no news");
    for reference in ["1.4.2", &digest] {
        assert_eq!(client.pull(&shop.reference(reference)), digest, "pulled as {reference}");
    }

    let refused = client.push("second", &shop.reference("1.4.2"));
    assert_ne!(refused.code, 0, "a version is never bound again: {refused:?}");
    let said = refused.stdout + &refused.stderr;
    assert!(said.contains(&digest), "the refusal names what is bound: {said}");
    assert!(said.contains("1.4.3"), "the refusal names what is free: {said}");
    assert_eq!(shop.sent("1.4.2"), json!({"201": 2, "409": 1, "all": 3}), "nothing is tried in another form");
    assert_eq!(shop.digest("1.4.2"), digest);

    push("second", "1.4.3");
    let newer = shop.digest("1.4.3");
    assert_ne!(newer, digest);
    for (label, pushed) in [("first", &digest), ("second", &newer)] {
        push(label, "latest");
        assert_eq!(shop.digest("latest"), **pushed, "a channel moves");
    }
    shop.environment.ok(&["audit", "verify"]);
    digest
}
