//! The server on a socket.

use bytes::Bytes;
use http::Request;
use semel_model::digest::Digest;
use semel_oci::client::RegistryClient;
use semel_oci::transport::{Body, Transport};
use semel_server::serve::{bind, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{House, name, pattern, send};

/// A house that listens.
pub(crate) struct Open {
    pub(crate) house: House,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<usize>,
}

impl Open {
    pub(crate) async fn new() -> Self {
        Self::of(House::new().await).await
    }

    pub(crate) async fn of(house: House) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(house.app.clone(), listener, stop.clone().cancelled_owned()));
        Self { house, address, stop, serving }
    }

    pub(crate) fn transport(&self) -> Transport {
        Transport::remote(&format!("http://{}", self.address)).unwrap()
    }

    async fn close(self) {
        self.stop.cancel();
        assert_eq!(self.serving.await.unwrap(), 0, "nothing is broken off");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_streams_up_and_down() {
    let open = Open::new().await;
    let client = RegistryClient::new(open.transport());
    let bytes = pattern(64 * 1024 * 1024);
    let digest = Digest::of(&bytes);
    client.put_blob(&name(), &digest, bytes.len() as u64, &bytes).await.unwrap();
    let mut blob = client.get_blob(&name(), &digest, None).await.unwrap();
    assert_eq!(blob.size, Some(bytes.len() as u64));
    let mut buffer = vec![0; 1024 * 1024];
    let mut size = 0;
    // The reader checks the digest.
    while let n @ 1.. = blob.reader.read(&mut buffer).await.unwrap() {
        size += n;
    }
    assert_eq!(size, bytes.len());
    open.close().await;
}

#[tokio::test]
async fn an_upload_under_way_finishes_when_the_server_stops() {
    let open = Open::new().await;
    let transport = open.transport();
    let upload = send(&transport, "POST", "/v2/shop/api/blobs/uploads/", &[], Body::empty()).await;
    let upload = upload.header("location").to_owned();
    let (mut sender, receiver) = tokio::io::duplex(1024);
    let body = Body::from_reader(receiver, None);
    let patch = transport.send(Request::patch(&upload).body(body).unwrap());
    let finish = async {
        sender.write_all(b"se").await.unwrap();
        let path = open.house.store.blobs().uploads().path(upload.rsplit('/').next().unwrap());
        while std::fs::metadata(&path).unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        open.stop.cancel();
        // Once nobody can come in any more, the server is on its way out.
        while tokio::net::TcpStream::connect(&open.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        sender.write_all(b"mel").await.unwrap();
        drop(sender);
    };
    let (answer, ()) = tokio::join!(patch, finish);
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["range"].to_str().unwrap()), (202, "0-4"));
    assert_eq!(open.serving.await.unwrap(), 0);
    let digest = Digest::of(b"semel");
    let heard = open.house.send("PUT", &format!("{upload}?digest={digest}"), &[], "").await;
    assert_eq!(heard.status, 201, "the session outlives the server");
}

#[tokio::test]
async fn what_a_broken_connection_brought_is_kept_and_gone_on_from() {
    let open = Open::new().await;
    let upload = open.house.send("POST", "/v2/shop/api/blobs/uploads/", &[], "").await;
    let upload = upload.header("location").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&open.address).await.unwrap();
    let head = format!("PATCH {upload} HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000\r\n\r\n", open.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&pattern(400)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let heard = open.house.get(&upload).await;
    assert_eq!(heard.header("range"), "0-399");
    let bytes: Bytes = pattern(1_000);
    let path = format!("{upload}?digest={}", Digest::of(&bytes));
    let heard = open.house.send("PUT", &path, &[("content-range", "400-999")], bytes.slice(400..)).await;
    assert_eq!(heard.status, 201);
    open.close().await;
}

/// As skopeo and curl do: they listen once everything is sent, or cannot be.
#[tokio::test]
async fn who_is_refused_while_still_sending_hears_why() {
    let open = Open::new().await;
    let upload = open.house.send("POST", "/v2/shop/api/blobs/uploads/", &[], "").await;
    let upload = upload.header("location").to_owned();
    let body = pattern(16 * 1024 * 1024);
    let gone = format!("/v2/shop/api/blobs/uploads/{}", "0".repeat(32));
    let last = body.len() - 1;
    for (method, path, header, status) in [
        ("PATCH", upload.as_str(), format!("content-range: 10-{}\r\n", last + 10), "416"),
        ("PATCH", &gone, String::new(), "404"),
        ("POST", "/v2/shop/api/blobs/uploads/?digest=sha256:bad", String::new(), "400"),
        ("PUT", "/v2/shop/api/manifests/endless", String::new(), "413"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&open.address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{header}content-length: {length}\r\n\r\n",
            open.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard.get(9..12), Some(status), "{method} {path}: {heard}");
    }
    open.close().await;
}

#[tokio::test]
async fn a_web_page_cannot_use_a_visitors_browser_to_speak_to_the_store() {
    let open = Open::new().await;
    let transport = open.transport();
    let port = open.address.rsplit(':').next().unwrap();
    let localhost = format!("localhost:{port}");
    let cases = [
        (("host", localhost.as_str()), 200),
        (("origin", "http://127.0.0.1:9999"), 200),
        (("host", "evil.example"), 403),
        (("origin", "http://evil.example"), 403),
        (("origin", "null"), 403),
    ];
    for (header, status) in cases {
        let heard = send(&transport, "GET", "/v2/", &[header], Body::empty()).await;
        assert_eq!(heard.status, status, "{header:?}");
    }
    open.close().await;
}

#[tokio::test]
async fn what_went_over_the_wire_is_counted() {
    let open = Open::new().await;
    let transport = open.transport();
    let bytes = pattern(200_000);
    let digest = open.house.push_blob(bytes.clone()).await;
    let path = format!("/v2/shop/api/blobs/{digest}");
    assert_eq!(send(&transport, "GET", &path, &[], Body::empty()).await.body, bytes);
    let page = send(&transport, "GET", "/metrics", &[], Body::empty()).await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let value = |name: &str| -> u64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not on the page:\n{page}")).parse().unwrap()
    };
    assert_eq!(value("semel_http_requests_total{kind=\"blob\",method=\"GET\",status=\"200\"}"), 1);
    assert_eq!(value("semel_http_request_duration_seconds_count{kind=\"blob\"}"), 1);
    assert!((200_000..210_000).contains(&value("semel_http_sent_bytes_total")), "{page}");
    assert!((1..10_000).contains(&value("semel_http_received_bytes_total")), "{page}");
    assert!(value("semel_http_connections") >= 1 && value("semel_ledger_leaves") >= 1);
    assert!(!cfg!(target_os = "linux") || value("process_resident_memory_bytes") > 1_000_000);
    open.close().await;
}

#[tokio::test]
async fn health_names_what_is_wrong_with_the_store_and_no_path() {
    let well = async |house: &House| {
        let heard = house.get("/healthz").await;
        (heard.status, String::from_utf8(heard.body.to_vec()).unwrap())
    };
    type Break = fn(&House, &House);
    let other = House::new().await;
    let cases: [(Break, &str); 3] = [
        (
            |house, _| std::fs::remove_file(house.store.dir().join("store.json")).unwrap(),
            "the identity of the store cannot be read\n",
        ),
        (
            |house, other| {
                let name = "store.json";
                std::fs::copy(other.store.dir().join(name), house.store.dir().join(name)).map(drop).unwrap();
            },
            "another store lies at the place of this one\n",
        ),
        (
            |house, _| std::fs::remove_dir(house.store.dir().join("uploads")).unwrap(),
            "the disk of the store cannot be written\n",
        ),
    ];
    for (break_it, said) in cases {
        let house = House::new().await;
        assert_eq!(well(&house).await, (200, "ok\n".to_owned()));
        break_it(&house, &other);
        assert_eq!(well(&house).await, (503, said.to_owned()));
    }
}
