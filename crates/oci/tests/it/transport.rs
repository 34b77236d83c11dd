//! The transport: the same over a socket and inside the process.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::client::Pushed;
use semel_oci::transport::{Body, InvalidServer, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::artefacts::pattern;
use crate::registry::{Fault, Registry, patient};

fn name() -> ComponentName {
    "shop/api".parse().unwrap()
}

#[tokio::test]
async fn a_blob_goes_over_a_socket_and_back_also_when_the_connection_breaks() {
    let registry = Registry::default();
    let base = registry.listen().await;
    for absolute in [None, Some(base.clone()), Some(base.replace("http:", "https:"))] {
        let bytes = pattern(5_000_000);
        let digest = Digest::of(&bytes);
        registry.with(|state| {
            state.absolute = absolute;
            state.received = 0;
            state.blobs.clear();
            state.faults.push_back(Fault::BreakAfter(2_000_000));
        });
        let client = patient(Transport::remote(&base).unwrap());
        assert_eq!(client.put_blob(&name(), &digest, 5_000_000, &bytes).await.unwrap(), Pushed::Sent);
        assert_eq!(registry.with(|state| state.received), 5_000_000);
        let mut fetched = Vec::new();
        let mut blob = client.get_blob(&name(), &digest, None).await.unwrap();
        blob.reader.read_to_end(&mut fetched).await.unwrap();
        assert_eq!(fetched, bytes);
    }
}

#[tokio::test]
async fn bodies_stream_in_process_without_being_collected() {
    // The service answers with what it reads: an endless request is only possible if nobody waits for its end.
    let echo = tower::service_fn(|request: Request<Body>| async move {
        Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
    });
    let endless = Body::from_reader(tokio::io::repeat(7), None);
    let answer = Transport::in_process(echo).send(Request::put("/x").body(endless).unwrap()).await.unwrap();
    let mut reader = answer.into_body().into_async_read();
    let mut bytes = vec![0; 1_000_000];
    reader.read_exact(&mut bytes).await.unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn the_length_of_a_body_is_stated() {
    let lengths = tower::service_fn(|request: Request<Body>| async move {
        let length = request.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned());
        let frames = request.into_body().collect().await.unwrap();
        let text = format!("{} of {}", frames.to_bytes().len(), length.unwrap_or_else(|| "unknown".into()));
        Ok::<_, std::convert::Infallible>(Response::new(http_body_util::Full::new(Bytes::from(text))))
    });
    let transport = Transport::in_process(lengths);
    let cases = [
        (Body::empty(), "0 of 0"),
        (Body::full("semel"), "5 of 5"),
        (Body::from_reader(&b"semel"[..], Some(4)), "4 of 4"),
        (Body::from_reader(&b"semel"[..], None), "5 of unknown"),
    ];
    for (body, expected) in cases {
        let answer = transport.send(Request::put("/").body(body).unwrap()).await.unwrap();
        assert_eq!(answer.into_body().collect_limited(100).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_breaks_off() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let get = || Request::get("/v2/").body(Body::empty()).unwrap();
    let accept = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200").await.unwrap();
    };
    let transport = Transport::remote(&base).unwrap();
    let (answer, ()) = tokio::join!(transport.send(get()), accept);
    let error = answer.unwrap_err();
    assert!(!error.is_connect() && !error.is_timeout(), "{error:?}");
    assert_eq!(error.to_string(), format!("GET {base}/v2/: the exchange broke off"));

    drop(listener);
    let error = transport.send(get()).await.unwrap_err();
    assert!(error.is_connect());
    assert_eq!(error.to_string(), format!("GET {base}/v2/: cannot connect"));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_an_error_and_no_short_body() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = Transport::remote(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let accept = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 20];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsemel").await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let (answer, ()) = tokio::join!(transport.send(Request::get("/").body(Body::empty()).unwrap()), accept);
    assert!(answer.unwrap().into_body().collect_limited(1000).await.is_err());
}

#[test]
fn only_the_address_of_a_server_is_accepted() {
    let cases = [
        "",
        "localhost:5000",
        "ftp://x",
        "http://",
        "http://h/path",
        "http://h/?q",
        "http://user:secret@h",
        "/v2/",
    ];
    for bad in cases {
        let error = Transport::remote(bad).unwrap_err();
        assert!(matches!(error, InvalidServer::Address { .. }), "{bad}");
    }
    assert_eq!(Transport::remote("http://127.0.0.1:5000/").unwrap().base(), Some("http://127.0.0.1:5000"));
    let debug = format!("{:?}", Transport::remote("http://[::1]:5000").unwrap());
    assert_eq!(debug, "Transport(http://[::1]:5000)");
}
