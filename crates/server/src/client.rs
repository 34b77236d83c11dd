//! The typed client of the JSON API.
