//! The end of a server that is asked to stop.

use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::Signal;
use semel_model::digest::Digest;

use crate::environment::{Serving, TestEnvironment};
use crate::http;

/// Where uploads begin.
const UPLOADS: &str = "/v2/shop/api/blobs/uploads/";

#[test]
fn a_server_that_is_asked_to_stop_finishes_what_is_under_way() {
    let environment = TestEnvironment::empty();
    let serving = environment.serve();
    let content = content();
    let (begun, rest) = content.split_at(content.len() / 2);
    let digest = Digest::of(&content);
    let path = format!("{UPLOADS}?digest={digest}");
    let mut upload = http::begin(&serving.address, "POST", &path, &[], content.len()).unwrap();
    upload.write_all(begun).unwrap();
    wait_for_bytes(&environment);
    serving.signal(Signal::TERM);
    wait_for_closed_door(&serving);
    upload.write_all(rest).unwrap();
    let answer = http::receive(upload).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(serving.ended(), 0);
    let serving = environment.serve();
    let path = format!("/v2/shop/api/blobs/{digest}");
    assert_eq!(http::send(&serving.address, "GET", &path, &[], b"").unwrap().body, content);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn a_server_that_is_asked_twice_stops_at_once_and_the_upload_goes_on_later() {
    let environment = TestEnvironment::empty();
    let serving = environment.serve();
    let content = content();
    let (begun, rest) = content.split_at(content.len() / 2);
    let session = http::send(&serving.address, "POST", UPLOADS, &[], b"").unwrap();
    let session = session.header("location");
    let mut upload = http::begin(&serving.address, "PATCH", session, &[], content.len()).unwrap();
    upload.write_all(begun).unwrap();
    wait_for_bytes(&environment);
    serving.signal(Signal::TERM);
    wait_for_closed_door(&serving);
    serving.signal(Signal::INT);
    assert_eq!(serving.ended(), 130);
    assert!(http::receive(upload).is_err(), "nobody is told that it arrived");

    let serving = environment.serve();
    let send = |method: &str, path: &str, body: &[u8]| {
        http::send(&serving.address, method, path, &[], body).unwrap()
    };
    let range = send("GET", session, b"").header("range").to_owned();
    let kept = range.rsplit_once('-').unwrap().1.parse::<usize>().unwrap() + 1;
    assert!((1..=begun.len()).contains(&kept), "what arrived is kept: {range}");
    let missing = [&begun[kept..], rest].concat();
    assert_eq!(send("PATCH", session, &missing).status, 202);
    let path = format!("{session}?digest={}", Digest::of(&content));
    assert_eq!(send("PUT", &path, b"").status, 201);
}

/// More than any buffer on the way holds.
fn content() -> Vec<u8> {
    (0..32 * 1024 * 1024_u32).map(|at| (at / 7 % 251) as u8).collect()
}

/// Waits until the bytes of an upload reach the disk.
fn wait_for_bytes(environment: &TestEnvironment) {
    let uploads = environment.store().join("uploads");
    let arrived = || environment.bytes_below(&uploads).iter().any(|(_, bytes)| !bytes.is_empty());
    while !arrived() {
        std::thread::yield_now();
    }
}

/// Waits until nobody can come in any more.
fn wait_for_closed_door(serving: &Serving) {
    while TcpStream::connect(&serving.address).is_ok() {
        std::thread::yield_now();
    }
}
