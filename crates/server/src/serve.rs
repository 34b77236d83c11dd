//! The router on a socket.
//!
//! Owns the connections: accepting, limits of number and time, the end. A request that may change something runs as a task of its
//! own, so that a client that goes away does not cut a change in two; a panic costs one answer. Listens on the loopback interface only, and answers
//! only requests that name it, since sign-in does not exist yet: otherwise any web page could use a visitor's browser to speak
//! to the store.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt as _;

use crate::limits::{self, Client};
use crate::linger::{Head, Lingering};
use crate::metrics::{Measured, Metrics};
use crate::{App, router};

/// How long a client may take to send the head of a request, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long nothing may move, once the server is to stop, before requests that are under way are broken off.
const GRACE: Duration = Duration::from_secs(30);
/// How many connections are served at a time. Further ones wait in the system's queue until one of these ends.
const MAX_CONNECTIONS: usize = 1024;
/// How many files belong to a connection: itself, and what is sent or received over it.
const FILES_PER_CONNECTION: usize = 2;
/// How many files the server has open besides, such as its database.
const OTHER_FILES: usize = 128;
/// How many connections may wait in the system's queue: one that finds it full is tried again by its client a second later.
const QUEUE: u32 = 1024;
/// How long to wait when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most bytes that a connection buffers on its way in. Several of them wait for the disk, so memory grows by a multiple.
const BUFFER_BYTES: usize = 64 * 1024;

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody on the network could change the store.
    #[error(
        "cannot listen on {0}: only loopback addresses such as 127.0.0.1:{port} are served, since sign-in does not exist yet",
        port = .0.port()
    )]
    NotLoopback(SocketAddr),
    /// Another program listens there.
    #[error("cannot listen on {0}: the port is taken; choose another one, or port 0 for any that is free")]
    Taken(SocketAddr),
    /// The system refuses.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Takes an address for listening. Port 0 takes any that is free.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    listen(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::Taken(address),
        _ => ServeError::Listen { address, source },
    })
}

/// As [`TcpListener::bind`], which lets 128 connections wait.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a server before this one that are not quite over do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// Answers requests until `shutdown` is ready. Then no new ones are taken, and those under way may finish as long as bytes come
/// or go; when none has for 30 seconds, they are broken off. Returns how many were.
pub async fn serve(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) -> usize {
    let _sweeping = AbortOnDropHandle::new(tokio::spawn(limits::sweep_forever(app.clone())));
    serve_router(router(app.clone()), &app, listener, shutdown).await
}

async fn serve_router(
    router: axum::Router,
    app: &App,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> usize {
    let server = Arc::new(Server {
        router,
        metrics: Arc::clone(app.metrics()),
        stop: CancellationToken::new(),
        connections: TaskTracker::new(),
        requests: TaskTracker::new(),
    });
    let places = Arc::new(Semaphore::new(connections_at_most()));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                limits::end_when_unread(&accepted.stream, app.limits());
                drop(server.connections.spawn(Arc::clone(&server).connection(accepted)));
            }
            Err(error) => {
                tracing::warn!(%error, "A connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    server.finish().await
}

/// As many as there may be, where the system lets this process open the files for them. Of itself it often allows 1024, and
/// more to who asks.
fn connections_at_most() -> usize {
    const WANTED: u64 = (MAX_CONNECTIONS * FILES_PER_CONNECTION + OTHER_FILES) as u64;
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current < WANTED) else { return MAX_CONNECTIONS };
    let asked = WANTED.min(limit.maximum.unwrap_or(WANTED));
    let granted = setrlimit(Resource::Nofile, Rlimit { current: Some(asked), ..limit });
    let connections = connections_within(granted.map_or(current, |()| asked));
    if connections < MAX_CONNECTIONS {
        tracing::warn!(
            connections,
            "The system lets this process open few files, so it serves few connections at a time"
        );
    }
    connections
}

/// How many connections can be served with so many files. One always is.
fn connections_within(files: u64) -> usize {
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    (files.saturating_sub(OTHER_FILES) / FILES_PER_CONNECTION).clamp(1, MAX_CONNECTIONS)
}

/// Waits for a place, then for a connection to take it. Those that come meanwhile wait in the system's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.expect("the places are never closed");
    let (stream, peer) = listener.accept().await?;
    Ok(Accepted { stream, client: Client::at(peer.ip()), _place: place })
}

/// A connection with its place.
struct Accepted {
    stream: TcpStream,
    client: Client,
    _place: OwnedSemaphorePermit,
}

struct Server {
    router: axum::Router,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    connections: TaskTracker,
    /// Those that run apart from their connection.
    requests: TaskTracker,
}

impl Server {
    async fn connection(self: Arc<Self>, accepted: Accepted) {
        let Accepted { stream, client, _place } = accepted;
        // Otherwise the last piece of each answer waits for the other side's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "A connection keeps its delay");
        }
        let stream = Measured::new(stream, Arc::clone(&self.metrics));
        let head = Head::default();
        let stream = Lingering::new(stream, self.stop.clone(), head.clone());
        let service = service_fn(|mut request: Request<Incoming>| {
            head.arrived();
            request.extensions_mut().insert(client);
            let (server, head) = (Arc::clone(&self), head.clone());
            async move {
                let answer = server.answer(request).await;
                head.answered();
                Ok::<_, Infallible>(answer)
            }
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "A connection broke off");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response {
        let begun = Instant::now();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = if !is_meant_for_us(&request) {
            misdirected()
        } else if !names_one_host(&request) {
            hostless()
        } else {
            self.run(request.map(Body::new)).await
        };
        let (status, duration) = (response.status(), begun.elapsed());
        self.metrics.answered(&method, uri.path(), status, duration);
        log(&method, uri.path(), status, duration);
        response
    }

    async fn run(&self, request: Request<Body>) -> Response {
        let is_read = is_read(&request);
        let answering = self.router.clone().oneshot(request);
        if is_read {
            return AssertUnwindSafe(answering).catch_unwind().await.map_or_else(|_| panicked(), answered);
        }
        // Apart from the connection: a client that goes away does not cut a change in two.
        self.requests.spawn(answering).await.map_or_else(|_| panicked(), answered)
    }

    /// Waits for what is under way as long as something moves; returns how many requests are broken off.
    async fn finish(&self) -> usize {
        self.stop.cancel();
        self.connections.close();
        self.requests.close();
        let mut ended = std::pin::pin!(async {
            self.connections.wait().await;
            self.requests.wait().await;
        });
        let mut moved_bytes = self.metrics.moved_bytes();
        while tokio::time::timeout(GRACE, ended.as_mut()).await.is_err() {
            let before = std::mem::replace(&mut moved_bytes, self.metrics.moved_bytes());
            if moved_bytes == before {
                // A request has a connection, runs apart from it, or both.
                let requests = self.connections.len().max(self.requests.len());
                tracing::warn!(requests, "Some requests do not get on and are broken off");
                return requests;
            }
        }
        0
    }
}

/// Whether a request changes nothing, whatever becomes of it. A question to the API may record an observation.
fn is_read<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path().starts_with("/v2/")
}

fn answered(answer: Result<Response, Infallible>) -> Response {
    match answer {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// What is panicked about has been said by the panic itself.
fn panicked() -> Response {
    tracing::error!("A request made its handler panic");
    (StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why\n").into_response()
}

/// Reads that were answered are many and say little.
fn log(method: &Method, path: &str, status: StatusCode, duration: Duration) {
    let (code, duration_ms) = (status.as_u16(), duration.as_millis());
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if is_read && (status.is_success() || status.is_redirection() || status == StatusCode::NOT_FOUND) {
        tracing::debug!(%method, %path, status = code, duration_ms, "{method} {path} {code}");
    } else {
        tracing::info!(%method, %path, status = code, duration_ms, "{method} {path} {code}");
    }
}

/// Whether the request names the loopback interface. A web page that gives its own name our address, or that sends a form
/// to us, names another one.
fn is_meant_for_us(request: &Request<Incoming>) -> bool {
    let texts = |name| {
        request.headers().get_all(name).iter().map(|value: &HeaderValue| value.to_str().unwrap_or("invalid"))
    };
    // A target in absolute form names the host as well, and before the header (RFC 9112 §3.2.2).
    let target = request.uri().authority().map(Authority::as_str);
    target.into_iter().chain(texts(HOST)).all(is_loopback_authority)
        && texts(ORIGIN).all(|origin| {
            let uri = origin.parse::<Uri>().ok();
            uri.as_ref().and_then(Uri::authority).is_some_and(|host| is_loopback_authority(host.as_str()))
        })
}

fn is_loopback_authority(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a request says once which host it means, as each of HTTP/1.1 has to (RFC 9112 §3.2).
fn names_one_host<B>(request: &Request<B>) -> bool {
    request.version() < Version::HTTP_11 || request.headers().get_all(HOST).iter().count() == 1
}

fn hostless() -> Response {
    (
        StatusCode::BAD_REQUEST,
        "a request says once, in its Host header, whom it means (RFC 9112, section 3.2)\n",
    )
        .into_response()
}

fn misdirected() -> Response {
    let text =
        "only requests for localhost or a loopback address are answered, since sign-in does not exist yet\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

#[cfg(test)]
mod tests {
    use semel_oci::transport::{self, Transport};

    use futures_util::StreamExt as _;
    use jiff::Timestamp;
    use semel_store::{Place, Store};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn app() -> (tempfile::TempDir, App) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::embedded(dir.path().join("store"), dir.path().join("keys"));
        let store = Store::open_or_create(&place, Timestamp::UNIX_EPOCH).await.unwrap();
        (dir, App::new(store, || Timestamp::UNIX_EPOCH, "ana"))
    }

    #[tokio::test]
    async fn an_address_that_others_can_reach_is_refused_with_the_reason() {
        for address in ["0.0.0.0:0", "192.0.2.1:5000", "[::]:0"] {
            let error = bind(address.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("sign-in does not exist yet"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_a_way_out() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("port 0"), "{error}");
    }

    #[tokio::test]
    async fn a_panic_costs_one_answer_and_says_nothing() {
        let router = axum::Router::new()
            .route(
                "/v2/panic",
                axum::routing::any(|| async {
                    if true {
                        panic!("secret")
                    }
                }),
            )
            .route("/well", axum::routing::get(|| async { "well" }));
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let (_dir, app) = app().await;
        let serving = tokio::spawn(async move { serve_router(router, &app, listener, stopped).await });
        let transport = Transport::remote(&address).unwrap();
        let failed = "the server failed; its log says why\n";
        for (method, path, status, said) in [
            ("GET", "/v2/panic", 500, failed),
            ("PUT", "/v2/panic", 500, failed),
            ("GET", "/well", 200, "well"),
        ] {
            let request = Request::builder().method(method).uri(path).body(transport::Body::empty()).unwrap();
            let answer = transport.send(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
            assert_eq!(answer.into_body().collect_limited(1_000).await.unwrap(), said);
        }
        stop.cancel();
        assert_eq!(serving.await.unwrap(), 0);
    }

    /// The clock stands still but for what is waited for.
    #[tokio::test]
    async fn a_request_that_does_not_get_on_is_broken_off_at_the_end_and_counted() {
        let (begun, mut began) = tokio::sync::mpsc::unbounded_channel();
        let taking = move |body: Body| async move {
            let mut pieces = body.into_data_stream();
            while let Some(Ok(piece)) = pieces.next().await {
                begun.send(piece).expect("the test listens");
            }
        };
        let router = axum::Router::new().route("/v2/take", axum::routing::put(taking));
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let head = b"PUT /v2/take HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nsem";
        client.write_all(head).await.unwrap();
        let (_dir, app) = app().await;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move { serve_router(router, &app, listener, stopped).await });
        assert_eq!(began.recv().await.unwrap(), "sem");
        tokio::time::pause();
        stop.cancel();
        assert_eq!(serving.await.unwrap(), 1);
    }

    /// The clock stands still but for what is waited for: who waited for the rest would break it off and count it.
    #[tokio::test]
    async fn a_request_whose_head_is_half_sent_does_not_keep_the_server_from_its_end() {
        let answered = b"GET /well HTTP/1.1\r\nhost: localhost\r\n\r\n";
        for (what, whole) in [("the first request", &b""[..]), ("a later one", answered)] {
            let router = axum::Router::new().route("/well", axum::routing::get(|| async { "well" }));
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (_dir, app) = app().await;
            let stop = CancellationToken::new();
            let (stopped, watched) = (stop.clone().cancelled_owned(), app.clone());
            let serving = tokio::spawn(async move { serve_router(router, &app, listener, stopped).await });
            let mut heard = [0];
            if !whole.is_empty() {
                client.write_all(whole).await.unwrap();
                client.read_exact(&mut heard).await.unwrap();
            }
            let before = watched.metrics().moved_bytes();
            client.write_all(b"GET /well HTTP/1.1\r\nho").await.unwrap();
            while watched.metrics().moved_bytes() == before {
                tokio::task::yield_now().await;
            }
            tokio::time::pause();
            stop.cancel();
            assert_eq!(serving.await.unwrap(), 0, "{what}");
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_until_another_ends() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let places = Arc::new(Semaphore::new(1));
        let address = listener.local_addr().unwrap();
        let _clients =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let first = accept(&listener, &places).await.unwrap();
        assert!(accept(&listener, &places).now_or_never().is_none());
        drop(first);
        drop(accept(&listener, &places).await.unwrap());
    }

    #[test]
    fn few_files_are_enough_for_few_connections() {
        for (files, connections) in [(0, 1), (128, 1), (256, 64), (1024, 448), (2176, 1024), (u64::MAX, 1024)]
        {
            assert_eq!(connections_within(files), connections, "{files}");
        }
    }

    #[test]
    fn only_names_of_the_loopback_interface_are_ours() {
        for ours in
            ["localhost", "localhost:5000", "127.0.0.1", "127.0.0.1:5000", "[::1]:5000", "semel.localhost:80"]
        {
            assert!(is_loopback_authority(ours), "{ours}");
        }
        for other in
            ["", "evil.example", "192.0.2.1:5000", "127.0.0.1.evil.example", "localhost.evil.example", "a b"]
        {
            assert!(!is_loopback_authority(other), "{other}");
        }
    }
}
