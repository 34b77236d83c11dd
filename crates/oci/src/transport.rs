//! The one way by which the HTTP of Semel's clients goes.
//!
//! A [`Transport`] leads to a server over the network or to a service inside the same process. Who uses it cannot
//! tell which, so there is one client, one API and one set of tests. It follows redirects, never retries, and knows
//! nothing of what it carries.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue, WWW_AUTHENTICATE};
use http::{Extensions, Method, Request, Response, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

pub use crate::body::{Body, BodyError, BoxError, BoxRead};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long neither side may be silent. There is no limit for the whole of an exchange: a virtual machine image takes
/// as long as it takes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Leads to one server. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Transport(Way);

#[derive(Clone)]
enum Way {
    Remote { client: reqwest::Client, base: String, idle: Duration },
    InProcess(BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>),
}

/// Why an address leads to no server.
#[derive(Debug, thiserror::Error)]
pub enum InvalidServer {
    /// The address has not the right form.
    #[error(
        "`{address}` is not the address of a server (expected `http://host:port` or `https://host`, no path)"
    )]
    Address {
        /// What was written.
        address: String,
    },
    /// No connection can be prepared, for instance because the system has no certificates.
    #[error("cannot prepare connections to {address}")]
    Prepare {
        /// The address.
        address: String,
        /// What is missing.
        #[source]
        source: BoxError,
    },
}

/// How much longer than usual the server may be silent before its answer: an extension of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forbearance(Duration);

impl Forbearance {
    /// How many bytes a second a server hashes and syncs, be it ever so busy.
    const BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;

    /// With what makes the server read all bytes of a blob once more before it answers.
    pub(crate) fn for_reading(size_bytes: u64) -> Self {
        Self(Duration::from_secs(size_bytes / Self::BYTES_PER_SECOND))
    }

    fn of(extensions: &Extensions) -> Duration {
        extensions.get().map_or(Duration::ZERO, |Self(more)| *more)
    }
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{method} {url}: {}", kind.text())]
pub struct TransportError {
    method: Method,
    url: String,
    kind: Kind,
    #[source]
    source: Option<BoxError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    Idle,
    Broken,
    Invalid,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Connect => "cannot connect",
            Self::Idle => "the server has been silent for too long",
            Self::Broken => "the exchange broke off",
            Self::Invalid => "the request cannot be sent",
        }
    }
}

impl TransportError {
    /// Whether the server was never reached: it may be down, or its address wrong.
    pub fn is_connect(&self) -> bool {
        self.kind == Kind::Connect
    }

    /// Whether the server was reached and then said nothing for too long.
    pub fn is_timeout(&self) -> bool {
        self.kind == Kind::Idle
    }
}

impl Transport {
    /// A server on the network, such as `https://semel.example.com` or `http://127.0.0.1:5000`.
    ///
    /// Proxies are taken from the usual environment variables, except for the loopback interface.
    pub fn remote(address: &str) -> Result<Self, InvalidServer> {
        let base = parse_address(address)?;
        let prepare =
            |source: reqwest::Error| InvalidServer::Prepare { address: base.clone(), source: source.into() };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("semel/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT);
        if base.starts_with("http://") {
            // Reading the system's certificates takes time, and a minimal machine has none. Plain HTTP needs none.
            builder = builder.tls_certs_only([]);
        }
        // A registry may redirect to where the bytes are, but not out of the encryption.
        builder = builder.https_only(base.starts_with("https://"));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(prepare)?;
        Ok(Self(Way::Remote { client, base, idle: IDLE_TIMEOUT }))
    }

    /// A service in this process, such as an `axum::Router`.
    pub fn in_process<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = service.map_err(Into::into).map_response(|response| response.map(Body::new));
        Self(Way::InProcess(BoxCloneSyncService::new(service)))
    }

    /// The address of the server; none inside the process.
    pub fn base(&self) -> Option<&str> {
        match &self.0 {
            Way::Remote { base, .. } => Some(base),
            Way::InProcess(_) => None,
        }
    }

    /// Sends a request and gives the answer as soon as its head is there; any status is an answer.
    ///
    /// The request's URI is a path with an optional query. An absolute one, as a server may give in `Location`, is
    /// followed to where it leads. `Content-Length` is set when the body's length is known.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, TransportError> {
        state_length(&mut request);
        match &self.0 {
            Way::Remote { client, base, idle } => send_remote(client, base, *idle, request).await,
            Way::InProcess(service) => send_in_process(service.clone(), request).await,
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({})", self.base().unwrap_or("in process"))
    }
}

fn parse_address(address: &str) -> Result<String, InvalidServer> {
    let invalid = || InvalidServer::Address { address: address.chars().take(300).collect() };
    let uri: Uri = address.trim().parse().map_err(|_| invalid())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(invalid()) };
    let plain = matches!(scheme, "http" | "https")
        && uri.path() == "/"
        && uri.query().is_none()
        && !authority.host().is_empty()
        // A password in an address ends up in error messages and process lists.
        && !authority.as_str().contains('@');
    if plain { Ok(format!("{scheme}://{authority}")) } else { Err(invalid()) }
}

fn is_loopback(base: &str) -> bool {
    let host = base.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A body-less POST or PUT must say so: some servers otherwise wait for a body or answer 411.
fn state_length(request: &mut Request<Body>) {
    let may_have_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if let Some(length) = request.body().exact_length()
        && may_have_body
        && !request.headers().contains_key(CONTENT_LENGTH)
    {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

async fn send_in_process(
    service: BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>,
    mut request: Request<Body>,
) -> Result<Response<Body>, TransportError> {
    let (method, url) = (request.method().clone(), request.uri().path().to_owned());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().expect("the path of a URI is a URI");
    service.oneshot(request).await.map_err(|source| TransportError {
        method,
        url,
        kind: Kind::Broken,
        source: Some(source),
    })
}

async fn send_remote(
    client: &reqwest::Client,
    base: &str,
    idle: Duration,
    request: Request<Body>,
) -> Result<Response<Body>, TransportError> {
    let (parts, body) = request.into_parts();
    let url = match parts.uri.authority() {
        Some(_) => parts.uri.to_string(),
        None => format!("{base}{}", parts.uri),
    };
    let fail = |kind, source| TransportError { method: parts.method.clone(), url: url.clone(), kind, source };
    let (activity, forbearance) = (Activity::start(), Forbearance::of(&parts.extensions));
    let mut builder = client.request(parts.method.clone(), &url).headers(parts.headers);
    if !http_body::Body::is_end_stream(&body) {
        builder = builder.body(reqwest::Body::wrap(Watched::new(body, activity.clone())));
    }
    let exchange = std::pin::pin!(builder.send());
    let patience = idle.saturating_add(forbearance);
    let answer = activity.until_silent(exchange, patience).await.ok_or_else(|| fail(Kind::Idle, None))?;
    let answer = answer.map_err(|error| {
        let kind = match () {
            () if error.is_connect() => Kind::Connect,
            () if error.is_builder() => Kind::Invalid,
            () => Kind::Broken,
        };
        fail(kind, Some(error.without_url().into()))
    })?;
    let is_from_there = reqwest::Url::parse(&url).is_ok_and(|asked| asked.origin() == answer.url().origin());
    let mut answer: Response<reqwest::Body> = answer.into();
    if !is_from_there {
        // Whoever was redirected to is somebody else, to whom one does not say who one is.
        answer.headers_mut().remove(WWW_AUTHENTICATE);
    }
    Ok(answer.map(|body| {
        let inner = Body::new(body.map_err(reqwest::Error::without_url));
        Body::new(IdleLimit { inner, idle, timer: None })
    }))
}

/// When the request last moved. A client that limits the time to the answer's head would cut off every upload that
/// takes longer; what must not happen is that nothing moves.
#[derive(Clone)]
struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    fn start() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the exchange while something moves; `None` once nothing has for `idle`.
    async fn until_silent<F: Future + Unpin>(&self, mut exchange: F, idle: Duration) -> Option<F::Output> {
        loop {
            let deadline = self.last() + idle;
            tokio::select! {
                biased;
                output = &mut exchange => return Some(output),
                () = tokio::time::sleep_until(deadline) => {}
            }
            if self.last() + idle <= deadline {
                return None;
            }
        }
    }
}

/// A request body that notes when it moves, and that may be shared between threads as the HTTP client demands.
struct Watched {
    inner: Mutex<Body>,
    activity: Activity,
}

impl Watched {
    fn new(body: Body, activity: Activity) -> Self {
        Self { inner: Mutex::new(body), activity }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let polled = Pin::new(inner).poll_frame(cx);
        if polled.is_ready() {
            self.activity.touch();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// An answer's body that fails when the server falls silent while we wait for it.
struct IdleLimit {
    inner: Body,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for IdleLimit {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame);
        }
        let idle = this.idle;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        timer.as_mut().poll(cx).map(|()| {
            let text = format!("the server has sent nothing for {} s", idle.as_secs());
            Some(Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn a_server_that_has_much_to_read_may_be_silent_for_longer() {
        let silence = |request: http::request::Builder| {
            Forbearance::of(request.body(()).unwrap().extensions()).as_secs()
        };
        assert_eq!(silence(Request::put("/")), 0);
        for (gib, seconds) in [(0, 0), (1, 64), (100, 6_400)] {
            assert_eq!(silence(Request::put("/").extension(Forbearance::for_reading(gib << 30))), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_may_take_any_time_as_long_as_something_moves() {
        let activity = Activity::start();
        let slow = Box::pin(async {
            for _ in 0..100 {
                tokio::time::sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
                activity.touch();
            }
        });
        assert_eq!(activity.until_silent(slow, IDLE_TIMEOUT).await, Some(()));
        let begun = Instant::now();
        assert_eq!(activity.until_silent(Box::pin(pending::<()>()), IDLE_TIMEOUT).await, None);
        assert_eq!(begun.elapsed(), IDLE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stops_is_an_error_and_a_slow_one_is_not() {
        let (mut server, client) = tokio::io::duplex(1024);
        let limited = IdleLimit { inner: Body::from_reader(client, None), idle: IDLE_TIMEOUT, timer: None };
        let collected = tokio::spawn(Body::new(limited).collect_limited(1000));
        for _ in 0..10 {
            tokio::time::sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
            server.write_all(b"x").await.unwrap();
        }
        let BodyError::Read(cause) = collected.await.unwrap().unwrap_err() else {
            panic!("it is not too large")
        };
        assert_eq!(cause.to_string(), "the server has sent nothing for 60 s");
    }
}
