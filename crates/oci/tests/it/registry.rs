//! A registry in a few maps: enough of the distribution specification for the client, with faults on order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::client::{RegistryClient, Retry};
use semel_oci::error::{ErrorBody, ErrorCode};
use semel_oci::manifest::{Index, ParsedManifest};
use semel_oci::range;
use semel_oci::reference::TagOrDigest;
use semel_oci::route::Route;
use semel_oci::transport::{Body, BoxError, Transport};

/// What goes wrong with the next request that carries the bytes of a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The connection breaks after so many bytes, which are kept.
    BreakAfter(usize),
    /// Everything is done, but the answer is lost.
    LoseAnswer,
    /// The registry forgets the upload and answers 503.
    Forget,
    /// The registry answers 503 and goes on.
    Busy,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) blobs: HashMap<Digest, Bytes>,
    pub(crate) manifests: HashMap<Digest, (String, Bytes)>,
    pub(crate) tags: BTreeMap<String, Digest>,
    pub(crate) uploads: HashMap<String, Vec<u8>>,
    pub(crate) faults: VecDeque<Fault>,
    /// Method and path of every request.
    pub(crate) log: Vec<String>,
    /// How many bytes of blobs were received, also in vain.
    pub(crate) received: usize,
    /// Answer the referrers API with 404, as old registries do.
    pub(crate) without_referrers: bool,
    /// Address of the registry, to be given as absolute `Location`.
    pub(crate) absolute: Option<String>,
    /// Say of no blob that it is there before it was mounted.
    pub(crate) apart: bool,
    /// Send these bytes in place of every blob.
    pub(crate) forged: Option<Bytes>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<State>>);

type Answer = Result<Response<Body>, BoxError>;

impl Registry {
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(crate) fn transport(&self) -> Transport {
        let this = self.clone();
        Transport::in_process(tower::service_fn(move |request| this.clone().answer(request)))
    }

    pub(crate) fn client(&self) -> RegistryClient {
        patient(self.transport())
    }

    pub(crate) fn requests(&self, method: &str) -> usize {
        self.with(|state| state.log.iter().filter(|line| line.starts_with(method)).count())
    }

    pub(crate) async fn answer<B>(self, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        self.with(|state| state.log.push(format!("{} {path}", parts.method)));
        let route: Route = match path.parse() {
            Ok(route) => route,
            Err(error) => return Ok(error_answer(error.status(), &error.body())),
        };
        match (parts.method.clone(), route) {
            (Method::GET | Method::HEAD, Route::Blob { digest, .. }) => Ok(self.get_blob(&parts, &digest)),
            (Method::POST, Route::Uploads { name }) => Ok(self.start(&parts, &name)),
            (Method::GET, Route::Upload { name, id }) => Ok(self.status(&name, &id)),
            (Method::PATCH, Route::Upload { name, id }) => self.append(&parts, &name, &id, body).await,
            (Method::PUT, Route::Upload { id, .. }) => self.finish(&parts, &id, body).await,
            (Method::GET | Method::HEAD, Route::Manifest { reference, .. }) => {
                Ok(self.get_manifest(&parts, &reference))
            }
            (Method::PUT, Route::Manifest { reference, .. }) => {
                self.put_manifest(&parts, &reference, body).await
            }
            (Method::GET, Route::Tags { name }) => Ok(self.tags(&parts, &name)),
            (Method::GET, Route::Referrers { digest, .. }) => Ok(self.referrers(&digest)),
            _ => Ok(refusal(ErrorCode::Unsupported)),
        }
    }

    fn get_blob(&self, parts: &http::request::Parts, digest: &Digest) -> Response<Body> {
        let (known, forged) = self.with(|state| (state.blobs.get(digest).cloned(), state.forged.clone()));
        let apart = self.with(|state| state.apart);
        let Some(bytes) = known.filter(|_| !apart).map(|bytes| forged.unwrap_or(bytes)) else {
            return refusal(ErrorCode::BlobUnknown);
        };
        let size = bytes.len() as u64;
        let asked = parts.headers.get("range").map(|value| range::requested(value.to_str().unwrap(), size));
        let answer = match asked {
            Some(range::Requested::Satisfiable(range)) => {
                let part = usize::try_from(*range.start()).unwrap()..=usize::try_from(*range.end()).unwrap();
                Response::builder().status(206).body(Body::full(bytes.slice(part)))
            }
            _ if parts.method == Method::HEAD => {
                Response::builder().header("content-length", size).body(Body::empty())
            }
            _ => Response::builder().header("content-length", size).body(Body::full(bytes)),
        };
        answer.unwrap()
    }

    fn start(&self, parts: &http::request::Parts, name: &ComponentName) -> Response<Body> {
        let query = parts.uri.query().unwrap_or_default();
        let mount = query.split('&').find_map(|pair| pair.strip_prefix("mount="));
        let mount: Digest = mount.unwrap().parse().unwrap();
        if self.with(|state| state.apart && state.blobs.contains_key(&mount)) {
            return Response::builder().status(201).body(Body::empty()).unwrap();
        }
        let id = self.with(|state| {
            let id = format!("u{}", state.log.len());
            state.uploads.insert(id.clone(), Vec::new());
            id
        });
        self.upload_answer(202, name, &id)
    }

    fn status(&self, name: &ComponentName, id: &str) -> Response<Body> {
        match self.with(|state| state.uploads.contains_key(id)) {
            true => self.upload_answer(204, name, id),
            false => refusal(ErrorCode::BlobUploadUnknown),
        }
    }

    async fn append<B>(&self, parts: &http::request::Parts, name: &ComponentName, id: &str, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<BoxError>,
    {
        let Some(there) = self.with(|state| state.uploads.get(id).map(Vec::len)) else {
            return Ok(refusal(ErrorCode::BlobUploadUnknown));
        };
        let chunk = range::chunk(parts.headers["content-range"].to_str()?)?;
        if chunk.first != there as u64 {
            let body = ErrorBody::new(ErrorCode::BlobUploadInvalid, "out of order", None);
            return Ok(error_answer(StatusCode::RANGE_NOT_SATISFIABLE, &body));
        }
        match self.take_in(id, body).await? {
            Some(refused) => Ok(refused),
            None => Ok(self.upload_answer(202, name, id)),
        }
    }

    async fn finish<B>(&self, parts: &http::request::Parts, id: &str, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<BoxError>,
    {
        let has_body = parts.headers["content-length"] != "0";
        if has_body && let Some(refused) = self.take_in(id, body).await? {
            return Ok(refused);
        }
        let query = parts.uri.query().unwrap_or_default();
        let digest: Digest =
            query.split('&').find_map(|pair| pair.strip_prefix("digest=")).unwrap().parse()?;
        let Some(bytes) = self.with(|state| state.uploads.remove(id)) else {
            return Ok(refusal(ErrorCode::BlobUploadUnknown));
        };
        if !digest.matches(&bytes) {
            return Ok(refusal(ErrorCode::DigestInvalid));
        }
        self.with(|state| state.blobs.insert(digest, bytes.into()));
        let lost = self.with(|state| {
            let lost = matches!(state.faults.front(), Some(Fault::LoseAnswer));
            lost.then(|| state.faults.pop_front()).is_some()
        });
        if lost {
            return Err("the answer is lost".into());
        }
        Ok(Response::builder().status(201).body(Body::empty()).unwrap())
    }

    /// Takes the bytes of a request, with the next fault; an answer when the request is refused.
    async fn take_in<B>(&self, id: &str, mut body: B) -> Result<Option<Response<Body>>, BoxError>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<BoxError>,
    {
        let fault = self.with(|state| match state.faults.front() {
            Some(Fault::LoseAnswer) | None => None,
            Some(_) => state.faults.pop_front(),
        });
        match fault {
            Some(Fault::Forget) => {
                self.with(|state| state.uploads.remove(id));
                return Ok(Some(busy()));
            }
            Some(Fault::Busy) => return Ok(Some(busy())),
            _ => {}
        }
        let mut left = match fault {
            Some(Fault::BreakAfter(bytes)) => bytes,
            _ => usize::MAX,
        };
        let mut there = self.with(|state| state.uploads.get(id).map_or(0, Vec::len));
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(Into::into)?.into_data() else { continue };
            let kept = data.len().min(left);
            self.with(|state| {
                let upload = state.uploads.entry(id.to_owned()).or_default();
                // What is left of a broken connection must not mix with what follows it.
                if upload.len() != there {
                    return Err(BoxError::from("another request writes to this upload"));
                }
                state.received += kept;
                upload.extend_from_slice(&data[..kept]);
                Ok(())
            })?;
            there += kept;
            left -= kept;
            if left == 0 {
                return Err("the connection breaks".into());
            }
        }
        Ok(None)
    }

    fn upload_answer(&self, status: u16, name: &ComponentName, id: &str) -> Response<Body> {
        let (there, base) =
            self.with(|state| (state.uploads[id].len(), state.absolute.clone().unwrap_or_default()));
        let route = Route::Upload { name: name.clone(), id: id.to_owned() };
        Response::builder()
            .status(status)
            .header("location", format!("{base}{route}?state=x"))
            .header("range", format!("0-{}", there.saturating_sub(1)))
            .body(Body::empty())
            .unwrap()
    }

    fn get_manifest(&self, parts: &http::request::Parts, reference: &TagOrDigest) -> Response<Body> {
        let found = self.with(|state| {
            let digest = match reference {
                TagOrDigest::Digest(digest) => digest.clone(),
                TagOrDigest::Tag(tag) => state.tags.get(tag.as_str())?.clone(),
            };
            state.manifests.get(&digest).cloned().map(|(media_type, bytes)| (digest, media_type, bytes))
        });
        let Some((digest, media_type, bytes)) = found else { return refusal(ErrorCode::ManifestUnknown) };
        Response::builder()
            .header("content-type", media_type)
            .header("content-length", bytes.len())
            .header("docker-content-digest", digest.as_str())
            .body(if parts.method == Method::HEAD { Body::empty() } else { Body::full(bytes) })
            .unwrap()
    }

    async fn put_manifest<B>(&self, parts: &http::request::Parts, reference: &TagOrDigest, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<BoxError>,
    {
        let bytes = body.collect().await.map_err(Into::into)?.to_bytes();
        let media_type = parts.headers["content-type"].to_str()?.to_owned();
        let parsed = ParsedManifest::parse(&bytes, Some(&media_type))?;
        let digest = match reference {
            TagOrDigest::Digest(digest) => digest.clone(),
            TagOrDigest::Tag(_) => Digest::of(&bytes),
        };
        let complete = self.with(|state| {
            parsed.required_blobs().iter().all(|blob| state.blobs.contains_key(&blob.digest))
                && parsed.required_manifests().iter().all(|child| state.manifests.contains_key(&child.digest))
        });
        if !complete {
            return Ok(refusal(ErrorCode::ManifestBlobUnknown));
        }
        let bound = self.with(|state| match reference {
            TagOrDigest::Tag(tag) => state.tags.get(tag.as_str()).cloned(),
            TagOrDigest::Digest(_) => None,
        });
        if let Some(bound) = bound.filter(|bound| *bound != digest) {
            let body = ErrorBody::new(ErrorCode::Denied, format!("bound to {bound}"), None);
            return Ok(error_answer(StatusCode::CONFLICT, &body));
        }
        self.with(|state| {
            if let TagOrDigest::Tag(tag) = reference {
                state.tags.insert(tag.as_str().to_owned(), digest.clone());
            }
            state.manifests.insert(digest.clone(), (media_type, bytes));
        });
        let mut answer = Response::builder().status(201).header("docker-content-digest", digest.as_str());
        if let Some(subject) = parsed.subject {
            answer = answer.header("oci-subject", subject.digest.as_str());
        }
        Ok(answer.body(Body::empty())?)
    }

    /// Two tags per page, whatever was asked for.
    fn tags(&self, parts: &http::request::Parts, name: &ComponentName) -> Response<Body> {
        let query = parts.uri.query().unwrap_or_default();
        let last = query.split('&').find_map(|pair| pair.strip_prefix("last=")).unwrap_or_default();
        let tags: Vec<String> =
            self.with(|state| state.tags.keys().filter(|tag| tag.as_str() > last).cloned().collect());
        let page: Vec<_> = tags.iter().take(2).collect();
        let mut answer = Response::builder();
        if tags.len() > page.len() {
            answer = answer.header("link", format!("</v2/{name}/tags/list?last={}>; rel=\"next\"", page[1]));
        }
        let body = serde_json::json!({"name": name, "tags": page});
        answer.body(Body::full(body.to_string())).unwrap()
    }

    fn referrers(&self, subject: &Digest) -> Response<Body> {
        if self.with(|state| state.without_referrers) {
            return Response::builder().status(404).body(Body::full("404 page not found")).unwrap();
        }
        let manifests = self.with(|state| {
            let parsed = state.manifests.iter().map(|(digest, (media_type, bytes))| {
                let parsed = ParsedManifest::parse(bytes, Some(media_type)).unwrap();
                let mut descriptor =
                    semel_oci::descriptor::Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
                descriptor.artifact_type = parsed.artifact_type;
                (parsed.subject, descriptor)
            });
            let about = parsed.filter(|(of, _)| of.as_ref().is_some_and(|of| of.digest == *subject));
            about.map(|(_, descriptor)| descriptor).collect()
        });
        let index = Index { artifact_type: None, manifests, subject: None, annotations: BTreeMap::new() };
        Response::new(Body::full(index.encode().bytes))
    }

    /// Serves on a free port of the loopback interface, until the runtime of the test ends.
    pub(crate) async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                let service = hyper::service::service_fn(move |request| this.clone().answer(request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        address
    }
}

/// A client that does not wait between attempts.
pub(crate) fn patient(transport: Transport) -> RegistryClient {
    RegistryClient::new(transport).with_retry(Retry { times: 3, pause: std::time::Duration::ZERO })
}

pub(crate) fn refusal(code: ErrorCode) -> Response<Body> {
    error_answer(code.status(), &ErrorBody::new(code, "no", None))
}

fn busy() -> Response<Body> {
    Response::builder().status(503).header("retry-after", "0").body(Body::full("<html>")).unwrap()
}

fn error_answer(status: StatusCode, body: &ErrorBody) -> Response<Body> {
    Response::builder().status(status).body(Body::full(body.to_bytes())).unwrap()
}

/// A service that always answers the same.
pub(crate) fn always(answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static) -> Transport {
    Transport::in_process(tower::service_fn(move |_request| {
        std::future::ready(Ok::<_, Infallible>(answer()))
    }))
}
