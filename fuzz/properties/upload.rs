//! What holds for every sequence of requests to an upload, through the router and a store on the disk.
//!
//! A model of the session is kept beside it: the bytes that were accepted. Whatever is sent, the server never fails, the
//! session has exactly those bytes, and the blob that it becomes is they.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Method, Request};
use semel_model::digest::Digest;
use semel_oci::transport::{Body, Transport};
use semel_server::{App, router};
use semel_store::{Place, Store};
use tokio::runtime::Runtime;

const UPLOADS: &str = "/v2/a/blobs/uploads/";

/// Reads the bytes as requests, one after the other, and sends them.
pub(crate) fn check(data: &[u8]) {
    static SERVER: LazyLock<Server> = LazyLock::new(Server::new);
    SERVER.runtime.block_on(SERVER.check(data));
}

struct Server {
    runtime: Runtime,
    transport: Transport,
    _directory: tempfile::TempDir,
}

struct Heard {
    status: u16,
    location: String,
    range: String,
    body: Bytes,
}

/// What is cut off the front of the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A length, then so many bytes.
    fn piece(&mut self) -> &'a [u8] {
        let length = self.byte().map_or(0, usize::from).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }
}

/// A request to a session.
enum Step<'a> {
    Append { range: Option<String>, body: &'a [u8] },
    Finish { digest: Option<String>, range: Option<String>, body: &'a [u8] },
    Elsewhere { method: Method, path: String, body: &'a [u8] },
}

impl<'a> Step<'a> {
    fn read(input: &mut Input<'a>, have: &[u8]) -> Option<Self> {
        let kind = input.byte()?;
        let text = String::from_utf8_lossy(input.piece()).into_owned();
        let body = input.piece();
        let follows = format!("{}-{}", have.len(), (have.len() + body.len()).wrapping_sub(1));
        let whole = || Digest::of(&[have, body].concat()).to_string();
        Some(match kind % 8 {
            0 => Self::Append { range: None, body },
            1 => Self::Append { range: Some(follows), body },
            2 => Self::Append { range: Some(text), body },
            3 => Self::Finish { digest: Some(whole()), range: Some(text), body },
            4 => Self::Finish { digest: Some(text), range: None, body },
            5 => Self::Finish { digest: None, range: Some(follows), body },
            6 => Self::Elsewhere { method: Method::POST, path: format!("{UPLOADS}?{text}"), body },
            _ => Self::Elsewhere { method: Method::PATCH, path: format!("{UPLOADS}{text}"), body },
        })
    }
}

impl Server {
    fn new() -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let directory = tempfile::tempdir().expect("a directory can be made");
        let place = Place::embedded(directory.path().join("store"), directory.path().join("keys"));
        let now = || jiff::Timestamp::UNIX_EPOCH;
        let store = runtime.block_on(Store::open_or_create(&place, now())).expect("a store can be made");
        let transport = Transport::in_process(router(App::new(store, now, "fuzz")));
        Self { runtime, transport, _directory: directory }
    }

    async fn check(&self, data: &[u8]) {
        let mut input = Input(data);
        let begun = self.send(Method::POST, UPLOADS, None, b"").await.expect("the request is well-formed");
        assert_eq!(begun.status, 202);
        let session = begun.location;
        let mut have = Vec::new();
        while let Some(step) = Step::read(&mut input, &have) {
            if self.take(&session, step, &mut have).await {
                return;
            }
        }
        self.finish(&session, &have).await;
    }

    /// Whether the session has ended with the step.
    async fn take(&self, session: &str, step: Step<'_>, have: &mut Vec<u8>) -> bool {
        match step {
            Step::Append { range, body } => {
                if let Some(heard) = self.send(Method::PATCH, session, range.as_deref(), body).await {
                    assert!(matches!(heard.status, 202 | 400 | 416), "{}", heard.status);
                    if !keep(have, body, &heard) {
                        return self.cancel(session).await;
                    }
                }
            }
            Step::Finish { digest, range, body } => {
                let query = digest.map_or(String::new(), |digest| format!("?digest={digest}"));
                let path = format!("{session}{query}");
                if let Some(heard) = self.send(Method::PUT, &path, range.as_deref(), body).await {
                    assert!(matches!(heard.status, 201 | 400 | 416), "{}", heard.status);
                    if heard.status == 201 {
                        have.extend_from_slice(body);
                        self.is_stored(&heard.location, have).await;
                        return true;
                    }
                    if self
                        .send(Method::GET, session, None, b"")
                        .await
                        .is_some_and(|heard| heard.status == 404)
                    {
                        return true;
                    }
                    if !keep(have, body, &heard) {
                        return self.cancel(session).await;
                    }
                }
            }
            Step::Elsewhere { method, path, body } => {
                if let Some(heard) =
                    self.send(method, &path, None, body).await.filter(|heard| heard.status == 202)
                {
                    self.send(Method::DELETE, &heard.location, None, b"").await;
                }
            }
        }
        let heard = self.send(Method::GET, session, None, b"").await.expect("the request is well-formed");
        assert_eq!((heard.status, heard.range), (204, place(have.len())));
        false
    }

    async fn finish(&self, session: &str, have: &[u8]) {
        let path = format!("{session}?digest={}", Digest::of(have));
        let heard = self.send(Method::PUT, &path, None, b"").await.expect("the request is well-formed");
        assert_eq!(heard.status, 201);
        self.is_stored(&heard.location, have).await;
    }

    /// Ends a session of which nobody can say what it has.
    async fn cancel(&self, session: &str) -> bool {
        let heard = self.send(Method::DELETE, session, None, b"").await.expect("the request is well-formed");
        assert_eq!(heard.status, 204);
        true
    }

    async fn is_stored(&self, location: &str, bytes: &[u8]) {
        let heard = self.send(Method::GET, location, None, b"").await.expect("the request is well-formed");
        assert_eq!((heard.status, &heard.body[..]), (200, bytes));
    }

    /// Sends a request, unless the library for requests does not take it.
    async fn send(&self, method: Method, path: &str, range: Option<&str>, body: &[u8]) -> Option<Heard> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(range) = range {
            request = request.header("content-range", range);
        }
        let request = request.body(Body::full(body.to_vec())).ok()?;
        let answer = self.transport.send(request).await.expect("the router answers everything");
        let (parts, body) = answer.into_parts();
        assert!(parts.status.as_u16() < 500, "the server failed: {}", parts.status);
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (location, range) = (header("location").to_owned(), header("range").to_owned());
        assert!(
            location.is_empty() || location.starts_with("/v2/"),
            "a place is named without a host: {location}"
        );
        let body = body.collect_limited(1 << 20).await.expect("the answer comes whole");
        Some(Heard { status: parts.status.as_u16(), location, range, body })
    }
}

/// What is accepted is kept whole; of a chunk that was refused for its length, what came may be kept, and the answer says so.
/// Whether it does: a session with one byte has the same range as one with none.
fn keep(have: &mut Vec<u8>, body: &[u8], heard: &Heard) -> bool {
    let (before, longer) = (place(have.len()), place(have.len() + body.len()));
    let refused = heard.status == 400 && !body.is_empty();
    if refused && before == longer {
        return false;
    }
    if heard.status == 202 || (refused && heard.range == longer) {
        have.extend_from_slice(body);
    }
    true
}

fn place(size: usize) -> String {
    format!("0-{}", size.saturating_sub(1))
}
