//! What holds for every text that somebody writes for an artefact, a place or an endpoint.

use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::reference::{Place, Reference, TagOrDigest, registry_base};
use semel_oci::route::Route;

/// What is accepted has one spelling, and none leads out of a directory.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(named) = text.parse::<TagOrDigest>() {
        assert_eq!(named.to_string(), text);
        assert!(!text.contains('/'));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        let written = reference.to_string();
        // Docker Hub's own images are in a directory that may be left out.
        assert!(written == text || text.contains("docker.io/"), "{written}");
        assert_eq!(written.parse().as_ref(), Ok(&reference));
        stays_inside(&reference.name);
    }
    if let Ok(place) = text.parse::<Place>() {
        assert_eq!(place.to_string().parse().as_ref(), Ok(&place));
    }
    if let Ok(route) = text.parse::<Route>() {
        assert_eq!(route.to_string().parse().as_ref(), Ok(&route));
        name_of(&route).into_iter().for_each(stays_inside);
    }
    // Docker Hub alone answers elsewhere.
    let base = registry_base(text);
    assert!(base.ends_with(text) || (text.ends_with("docker.io") && base == "https://registry-1.docker.io"));
}

fn stays_inside(name: &ComponentName) {
    let inside = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0', '%']);
    assert!(name.as_str().split('/').all(inside), "{name}");
}

fn name_of(route: &Route) -> Option<&ComponentName> {
    match route {
        Route::Base | Route::Catalog => None,
        Route::Blob { name, .. }
        | Route::Uploads { name }
        | Route::Upload { name, .. }
        | Route::Manifest { name, .. }
        | Route::Tags { name }
        | Route::Referrers { name, .. } => Some(name),
    }
}
