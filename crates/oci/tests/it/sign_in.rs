//! Signing in, with a registry and a token service on real sockets.

use std::sync::{Arc, Mutex};

use semel_model::digest::Digest;
use semel_oci::client::{RegistryClient, Retry};
use semel_oci::manifest::ImageManifest;
use semel_oci::reference::TagOrDigest;
use semel_oci::sign_in::{Login, Logins};
use semel_oci::transport::Transport;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// What came in: the first line and the `authorization` of each request.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Answers each request with what `answer` makes of its first line and its authorisation; gives its address.
async fn serve(answer: impl Fn(&str, Option<&str>) -> String + Send + Sync + 'static) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let first = head.lines().next().unwrap().to_owned();
            let known = head.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned);
            let text = answer(&first, known.as_deref());
            log.lock().unwrap().push((first, known));
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, seen)
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn manifest() -> semel_oci::manifest::EncodedManifest {
    let config = semel_oci::descriptor::Descriptor::empty();
    ImageManifest {
        artifact_type: None,
        config,
        layers: vec![],
        subject: None,
        annotations: Default::default(),
    }
    .encode()
}

async fn registry(accepted: &'static str, challenge: String) -> (RegistryClient, String, Seen) {
    let manifest = manifest();
    let body = String::from_utf8(manifest.bytes.to_vec()).unwrap();
    let kind = format!("Content-Type: {}\r\n", manifest.descriptor.media_type);
    let (address, seen) = serve(move |_, known| match known {
        Some(known) if known == accepted => http("200 OK", &kind, &body),
        _ => http("401 Unauthorized", &format!("WWW-Authenticate: {challenge}\r\n"), ""),
    })
    .await;
    let transport = Transport::remote(&format!("http://{address}")).unwrap();
    let retry = Retry { times: 0, pause: std::time::Duration::ZERO };
    (RegistryClient::new(transport).with_retry(retry), address, seen)
}

fn ana() -> Logins {
    Logins::from_lookup(|host| {
        let local = host.starts_with("127.0.0.1:");
        local.then(|| Login { user: "ana".to_owned(), password: "pw".to_owned() })
    })
}

fn wanted() -> (semel_model::name::ComponentName, TagOrDigest, Digest) {
    let digest = manifest().descriptor.digest;
    ("library/debian".parse().unwrap(), TagOrDigest::Tag("12".parse().unwrap()), digest)
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says_and_used_until_it_is_refused() {
    let (service, asked) = serve(|_, _| http("200 OK", "", r#"{"token":"t0"}"#)).await;
    let challenge = format!(
        "Bearer realm=\"http://{service}/token\",service=\"reg\",scope=\"repository:library/debian:pull\""
    );
    let (client, _, seen) = registry("Bearer t0", challenge).await;
    let (name, tag, digest) = wanted();
    for _ in 0..2 {
        assert_eq!(client.get_manifest(&name, &tag).await.unwrap().descriptor.digest, digest);
    }
    let asked = asked.lock().unwrap();
    let first = "GET /token?service=reg&scope=repository%3Alibrary/debian%3Apull HTTP/1.1".to_owned();
    assert_eq!(*asked, [(first, None)], "anonymous, and once");
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_known_user_says_so_to_the_token_service_or_to_the_registry() {
    let basic = "Basic YW5hOnB3";
    let (service, asked) = serve(|_, _| http("200 OK", "", r#"{"access_token":"t1"}"#)).await;
    let (client, ..) = registry("Bearer t1", format!("Bearer realm=\"http://{service}/token\"")).await;
    let (name, tag, digest) = wanted();
    let found = client.with_logins(ana()).get_manifest(&name, &tag).await.unwrap();
    assert_eq!(found.descriptor.digest, digest);
    assert_eq!(asked.lock().unwrap()[0].1.as_deref(), Some(basic));

    let (client, ..) = registry(basic, "Basic realm=\"x\"".to_owned()).await;
    let nobody = client.get_manifest(&name, &tag).await.unwrap_err();
    assert_eq!(nobody.status().map(|status| status.as_u16()), Some(401));
    let found = client.with_logins(ana()).get_manifest(&name, &tag).await.unwrap();
    assert_eq!(found.descriptor.digest, digest);
}

#[tokio::test]
async fn a_service_that_gives_no_token_is_named_as_the_cause() {
    let (name, tag, _) = wanted();
    let (closed, _) = serve(|_, _| http("403 Forbidden", "", "")).await;
    let (empty, _) = serve(|_, _| http("200 OK", "", "{}")).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    for (realm, says) in [
        (format!("http://{closed}/token"), "it answered 403 Forbidden"),
        (format!("http://{empty}/token"), "no token that can be used"),
        (format!("http://{free}/token"), "gave no token"),
        ("token".to_owned(), "is no address"),
    ] {
        let (client, ..) = registry("Bearer t0", format!("Bearer realm=\"{realm}\"")).await;
        let failed = client.get_manifest(&name, &tag).await.unwrap_err();
        let cause = std::error::Error::source(&failed).unwrap().to_string();
        assert!(cause.contains(says) && cause.contains(&realm), "{failed}: {cause}");
    }
}

#[tokio::test]
async fn who_is_somewhere_else_does_not_learn_who_asks() {
    let (collector, collected) = serve(|_, _| http("200 OK", "", r#"{"token":"t0"}"#)).await;
    let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{collector}/token\"\r\n");
    let (thief, _) = serve(move |_, _| http("401 Unauthorized", &challenge, "")).await;
    let elsewhere = format!("http://{thief}/v2/library/debian/tags/list");
    let goes_on = format!("Link: <{elsewhere}>; rel=\"next\"\r\n");
    let leads_away = format!("Location: {elsewhere}\r\n");
    for (status, headers) in [("200 OK", goes_on), ("307 Temporary Redirect", leads_away)] {
        let (address, _) = serve(move |_, _| http(status, &headers, r#"{"tags":["12"]}"#)).await;
        let transport = Transport::remote(&format!("http://{address}")).unwrap();
        let retry = Retry { times: 0, pause: std::time::Duration::ZERO };
        let client = RegistryClient::new(transport).with_retry(retry).with_logins(ana());
        let refused = client.tags(&wanted().0).await.unwrap_err();
        assert_eq!(refused.status().map(|status| status.as_u16()), Some(401), "{refused:?}");
        assert_eq!(*collected.lock().unwrap(), [], "{status}");
    }
}
