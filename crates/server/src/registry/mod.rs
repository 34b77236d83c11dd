//! The OCI registry (distribution-spec 1.1).
//!
//! ```text
//! memory     what is read again and again: what names mean, and small content
//! blobs      content by digest: ranges, conditions, streaming
//! uploads    sessions by which blobs come in
//! manifests  artefacts by digest and by name: pull, push, the rules of names, delete
//! names      whether a component is there
//! tags       lists of tags and of components
//! referrers  what refers to an artefact
//! page       the part of a list that one answer gives
//! ```
//!
//! Reads a request, calls the store or the engine, and says the result in the words of the specification. Names are given and
//! refused by the engine. A blob's bytes are the same in every component, but each component's clients read only those that
//! came to it.

mod memory;
mod blobs;
mod uploads;

mod manifests;
mod names;
mod tags;

mod referrers;

mod page;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use semel_model::digest::Digest;
use semel_oci::error::ErrorCode;
use semel_oci::route::{InvalidRoute, Route};

use crate::App;
use crate::error::Refusal;
use crate::limits::Client;

pub(crate) use memory::Memory;
pub(crate) use uploads::Sessions;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static(semel_oci::client::CONTENT_DIGEST);
const OCI_SUBJECT: HeaderName = HeaderName::from_static(semel_oci::client::OCI_SUBJECT);
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static(semel_oci::client::OCI_FILTERS_APPLIED);
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// By this, clients of Docker's time recognise a registry.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What is fetched by its digest never changes.
const IMMUTABLE: &str = "max-age=31536000, immutable";

type Result<T = Response> = std::result::Result<T, Refusal>;

/// Answers every request under `/v2/`.
pub(crate) async fn handle(State(app): State<App>, request: Request) -> Response {
    let answered = answer(&app, request).await;
    let mut response = answered.unwrap_or_else(Refusal::into_response);
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

async fn answer(app: &App, request: Request) -> Result {
    let (parts, body) = request.into_parts();
    require_one_reading(&parts.headers)?;
    let route: Route = parts.uri.path().parse()?;
    let asked = Asked {
        query: Parameters::of(&parts.uri)?,
        client: parts.extensions.get().copied(),
        method: parts.method,
        headers: parts.headers,
    };
    match route {
        Route::Base => base(&asked),
        Route::Catalog => tags::catalog(app, &asked).await,
        Route::Blob { name, digest } => blobs::answer(app, &asked, &name, &digest).await,
        Route::Uploads { name } => uploads::start(app, &asked, &name, body).await,
        Route::Upload { name, id } => uploads::answer(app, &asked, &name, &id, body).await,
        Route::Manifest { name, reference } => manifests::answer(app, &asked, &name, &reference, body).await,
        Route::Tags { name } => tags::list(app, &asked, &name).await,
        Route::Referrers { name, digest } => referrers::list(app, &asked, &name, &digest).await,
    }
}

/// Headers that change what a request means. One that stands twice, or is no text, is not taken for one that is not there:
/// somebody between the client and us may have read it.
fn require_one_reading(headers: &HeaderMap) -> Result<()> {
    for name in [CONTENT_TYPE, CONTENT_RANGE, RANGE, IF_RANGE] {
        let mut values = headers.get_all(&name).iter();
        let is_text = values.next().is_none_or(|value| value.to_str().is_ok());
        if !is_text || values.next().is_some() {
            let message = format!("the header {name} stands twice or cannot be read");
            return Err(Refusal::with_status(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message));
        }
    }
    Ok(())
}

fn base(asked: &Asked) -> Result {
    asked.require_read()?;
    Ok(json(StatusCode::OK, b"{}".as_slice()))
}

/// A request without its path and body.
struct Asked {
    method: Method,
    headers: HeaderMap,
    query: Parameters,
    client: Option<Client>,
}

impl Asked {
    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    fn require_read(&self) -> Result<()> {
        match self.method {
            Method::GET | Method::HEAD => Ok(()),
            _ => Err(self.not_allowed("GET, HEAD")),
        }
    }

    /// The refusal of a method that the path does not know.
    fn not_allowed(&self, allowed: &'static str) -> Refusal {
        Refusal::new(ErrorCode::Unsupported, format!("{} is not possible here", self.method))
            .header(ALLOW, HeaderValue::from_static(allowed))
    }

    /// Whether the client has this representation, by a list of entity tags in a header.
    fn names_entity(&self, header: &HeaderName, digest: &Digest) -> bool {
        let own = |tag: &str| tag.strip_prefix('"')?.strip_suffix('"').map(|text| text == digest.as_str());
        let listed = self.headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        listed.flat_map(|list| list.split(',')).any(|tag| {
            let tag = tag.trim();
            tag == "*" || own(tag.strip_prefix("W/").unwrap_or(tag)) == Some(true)
        })
    }
}

/// The parameters of a query, of which some may occur more than once.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(uri: &Uri) -> Result<Self> {
        if uri.query().is_none() {
            return Ok(Self(Vec::new()));
        }
        let read = Query::<Vec<(String, String)>>::try_from_uri(uri);
        match read {
            // PostgreSQL knows no text with a zero byte.
            Ok(Query(pairs)) if pairs.iter().all(|(_, value)| !value.contains('\0')) => Ok(Self(pairs)),
            _ => {
                let message = "the query of the request cannot be read";
                Err(Refusal::with_status(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message))
            }
        }
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn digest(&self) -> Result<Option<Digest>> {
        let mut digests = self.all("digest");
        let digest = digests.next().map(read_digest).transpose()?;
        match digests.next() {
            None => Ok(digest),
            Some(_) => Err(Refusal::new(ErrorCode::DigestInvalid, "the request names two digests")),
        }
    }
}

fn read_digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(160).collect();
        Refusal::new(ErrorCode::DigestInvalid, format!("`{shown}` is not a digest"))
    })
}

impl From<InvalidRoute> for Refusal {
    fn from(error: InvalidRoute) -> Self {
        Self::with_status(error.status(), error.code(), error.to_string())
    }
}

fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn json(status: StatusCode, bytes: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], bytes.into()).into_response()
}
