//! Pages of a list: how many entries, behind which one, and where the next page is (distribution-spec 1.1, "Listing Tags").

use axum::response::Response;
use http::header::LINK;
use http::{HeaderValue, StatusCode};
use semel_oci::client::query_value;
use semel_oci::error::ErrorCode;
use semel_oci::route::Route;

use super::{Asked, Result};
use crate::error::Refusal;

/// How many entries a page has when the client does not say.
const USUAL: u64 = 1_000;

/// Which part of a list is asked for.
pub(super) struct Page {
    /// How many entries there may be.
    pub(super) size: u64,
    /// Behind which entry it begins.
    pub(super) after: String,
}

impl Page {
    /// Reads `n`, of which no more than `most` are given, and `last`.
    pub(super) fn asked_for(asked: &Asked, most: u64) -> Result<Self> {
        let size = match asked.query.first("n") {
            None => USUAL,
            Some(text) => number(text)?,
        };
        let after = asked.query.first("last").unwrap_or_default().to_owned();
        Ok(Self { size: size.min(most), after })
    }

    /// The entries of the page, and whether the list goes on behind them.
    pub(super) fn cut<T>(&self, mut entries: Vec<T>) -> (Vec<T>, bool) {
        let size = usize::try_from(self.size).expect("a page is small");
        let more = entries.len() > size;
        entries.truncate(size);
        (entries, more)
    }

    /// Says where the list goes on behind the last entry of this page. A page of no entries leads nowhere.
    pub(super) fn lead_on(&self, response: &mut Response, route: &Route, kept: &[(&str, &str)], last: &str) {
        let kept: String = kept.iter().map(|(key, value)| format!("&{key}={}", query_value(value))).collect();
        let link = format!("<{route}?n={}&last={}{kept}>; rel=\"next\"", self.size, query_value(last));
        let link = HeaderValue::from_str(&link).expect("names and encoded values are visible ASCII");
        response.headers_mut().insert(LINK, link);
    }
}

/// More than a number can say is as good as the most.
fn number(text: &str) -> Result<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = "`n` is the number of entries of a page";
        return Err(Refusal::with_status(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}
