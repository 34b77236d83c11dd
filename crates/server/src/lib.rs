//! Every face over HTTP: OCI registry, JSON API, and the typed client of the API
