//! kill -9 of the server at any moment, while clients push, delete and collect: what they were told is so afterwards.
//!
//! Every round starts a server on the same store, checks what clients were told in the round before, lets some of them
//! work, and kills the server at a moment that a seeded generator chooses: some milliseconds after some requests. Now and
//! then everything is verified.

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use semel_model::digest::Digest;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::{EncodedManifest, ImageManifest};
use semel_oci::media_type;
use semel_oci::route::Route;

use crate::environment::TestEnvironment;
use crate::http::{self, Answer};
use crate::random::Random;

/// Rounds with a store of their own, at the same time.
const STORES: [u64; 2] = [1, 2];
/// How often a server is killed on each store while clients are at work.
const KILLS: u64 = 250;
/// After how many rounds another server is killed while it starts.
const START_KILLED_EVERY: u64 = 10;
/// After how many rounds everything is verified.
const VERIFY_EVERY: u64 = 50;
/// How many clients work at the same time.
const CLIENTS: u64 = 3;
/// The most requests that are fulfilled before a server is killed.
const REQUESTS: u64 = 30;
/// The longest that it lives after that.
const LAST_MILLIS: u64 = 20;
/// The longest that a server lives which is killed while it starts.
const START_MILLIS: u64 = 100;
/// Larger than what any buffer on the way holds back.
const LAYER_BYTES: usize = 150_000;

/// What a client does, over and over, until nobody answers any more.
const WORK: [fn(&mut Client) -> io::Result<()>; 8] = [
    Client::push_in_one_request,
    Client::push_in_pieces,
    Client::push_what_others_push_too,
    Client::move_channel,
    Client::delete_channel,
    Client::delete_version,
    Client::delete_digest,
    Client::collect,
];

#[test]
fn what_was_acknowledged_survives_every_kill() {
    std::thread::scope(|scope| {
        for seed in STORES {
            scope.spawn(move || kill_again_and_again(seed));
        }
    });
}

fn kill_again_and_again(seed: u64) {
    let environment = TestEnvironment::empty();
    let (told, mut random) = (Arc::new(Mutex::new(Told::default())), Random::new(seed));
    for round in 1..=KILLS {
        let serving = environment.serve();
        lock(&told).check_news(&serving.address);
        std::thread::scope(|scope| {
            let (fulfilled, requests) = mpsc::channel();
            for number in 0..CLIENTS {
                let client = Client {
                    address: serving.address.clone(),
                    told: Arc::clone(&told),
                    fulfilled: fulfilled.clone(),
                    random: Random::new(random.below(u64::MAX)),
                    round,
                    number,
                    count: 0,
                };
                scope.spawn(|| client.work());
            }
            drop(fulfilled);
            let enough = usize::try_from(random.below(REQUESTS)).unwrap();
            requests.iter().take(enough).for_each(drop);
            pause(random.below(LAST_MILLIS));
            drop(serving);
        });
        if round % START_KILLED_EVERY == 0 {
            kill_a_start(environment.command(&["serve", "--listen", "127.0.0.1:0"]), &mut random);
        }
        if round % VERIFY_EVERY == 0 {
            environment.ok(&["audit", "verify"]);
        }
    }
    let serving = environment.serve();
    lock(&told).check_all(&serving.address);
    environment.ok(&["audit", "verify"]);
}

fn kill_a_start(mut serve: Command, random: &mut Random) {
    let mut child = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    pause(random.below(START_MILLIS));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The moment of the kill is what is tested.
fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// What a name may mean: more than one thing while nobody knows whether the last request was fulfilled.
type Candidates = Vec<Option<Digest>>;

/// What clients were told, and rely on.
#[derive(Default)]
struct Told {
    /// What each version means, once anybody was told. No version is ever taken out or changed.
    versions: BTreeMap<String, Digest>,
    /// What each channel may mean.
    channels: BTreeMap<String, Candidates>,
    /// What may be under each digest that was pushed without a name since the last check.
    nameless: BTreeMap<Digest, Candidates>,
    /// Versions that were pushed since the last check, whether anybody was told so or not.
    news: Vec<(String, Image)>,
}

impl Told {
    /// A version means what it meant before, if it meant anything.
    fn version(&mut self, version: &str, digest: &Digest) {
        let meant = self.versions.entry(version.to_owned()).or_insert_with(|| digest.clone());
        assert_eq!(meant, digest, "version {version} means other bytes");
    }

    /// Everything of the last round is there, with its bytes.
    fn check_news(&mut self, address: &str) {
        for (version, image) in std::mem::take(&mut self.news) {
            let Some(found) = look(address, &version) else {
                assert!(!self.versions.contains_key(&version), "version {version} is lost");
                continue;
            };
            self.version(&version, &found);
            if found == image.manifest.descriptor.digest {
                image.check_blobs(address);
            }
        }
        for (channel, candidates) in &mut self.channels {
            *candidates = vec![check(address, channel, candidates)];
        }
        for (digest, candidates) in std::mem::take(&mut self.nameless) {
            check(address, digest.as_str(), &candidates);
        }
    }

    /// Every version that ever had a meaning has it still.
    fn check_all(&mut self, address: &str) {
        self.check_news(address);
        for (version, digest) in &self.versions {
            assert_eq!(look(address, version).as_ref(), Some(digest), "version {version}");
        }
        assert!(self.versions.len() as u64 > KILLS / 2, "only {} versions were pushed", self.versions.len());
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is under a name is one of what may be there.
fn check(address: &str, reference: &str, candidates: &Candidates) -> Option<Digest> {
    let found = look(address, reference);
    assert!(candidates.contains(&found), "{reference} is {found:?}, not one of {candidates:?}");
    found
}

/// The digest of the bytes under a name.
fn look(address: &str, reference: &str) -> Option<Digest> {
    let answer = http::send(address, "GET", &manifest(reference), &[], b"").unwrap();
    match answer.status {
        200 => {
            let digest = Digest::of(&answer.body);
            assert_eq!(answer.header("docker-content-digest"), digest.as_str(), "{reference}");
            Some(digest)
        }
        404 => None,
        _ => panic!("{reference}: {answer:?}"),
    }
}

/// Somebody who pushes and deletes.
struct Client {
    address: String,
    told: Arc<Mutex<Told>>,
    /// Hears of each request that was answered.
    fulfilled: mpsc::Sender<()>,
    random: Random,
    round: u64,
    number: u64,
    count: u64,
}

impl Client {
    /// Works until a connection breaks off.
    fn work(mut self) {
        loop {
            let work = WORK[self.random.below(WORK.len() as u64) as usize];
            self.count += 1;
            if work(&mut self).is_err() {
                return;
            }
        }
    }

    /// Nothing is too young: what was uploaded and not yet named goes into the trash, and comes back when it is named.
    fn collect(&mut self) -> io::Result<()> {
        let kind = [("content-type", "application/json")];
        self.expect(200, "POST", "/api/v1/collections", &kind, br#"{"grace":"0s"}"#).map(drop)
    }

    fn push_in_one_request(&mut self) -> io::Result<()> {
        let image = self.image();
        self.blobs(&image)?;
        let version = format!("{}.{}.{}", self.round, self.number, self.count);
        self.bind(&version, &image)
    }

    fn push_in_pieces(&mut self) -> io::Result<()> {
        let image = self.image();
        self.blob_in_one_request(&image.config)?;
        self.blob_in_pieces(&image.layer)?;
        let version = format!("{}.{}.{}", self.round, self.number, self.count);
        self.bind(&version, &image)
    }

    /// A version that every client of this round wants, each with bytes of its own.
    fn push_what_others_push_too(&mut self) -> io::Result<()> {
        let image = self.image();
        self.blobs(&image)?;
        self.bind(&format!("0.{}.{}", self.round, self.count / 4), &image)
    }

    fn move_channel(&mut self) -> io::Result<()> {
        let image = self.image();
        self.blobs(&image)?;
        let (channel, digest) = (self.channel(), image.manifest.descriptor.digest.clone());
        self.may_become(Some(digest.clone()));
        let answer = self.put(&channel, &image)?;
        assert_eq!(answer.status, 201, "{channel}: {answer:?}");
        lock(&self.told).channels.insert(channel, vec![Some(digest)]);
        Ok(())
    }

    fn delete_channel(&mut self) -> io::Result<()> {
        let channel = self.channel();
        self.may_become(None);
        let answer = self.send("DELETE", &manifest(&channel), &[], b"")?;
        assert!([202, 404].contains(&answer.status), "{channel}: {answer:?}");
        lock(&self.told).channels.insert(channel, vec![None]);
        Ok(())
    }

    /// Whoever wants a version gone is told that it stays.
    fn delete_version(&mut self) -> io::Result<()> {
        let known = lock(&self.told).versions.last_key_value().map(|(version, _)| version.clone());
        let Some(version) = known else { return Ok(()) };
        self.expect(405, "DELETE", &manifest(&version), &[], b"").map(drop)
    }

    /// An artefact without a name goes, unless something holds it: whatever is answered is so.
    fn delete_digest(&mut self) -> io::Result<()> {
        let image = self.image();
        self.blobs(&image)?;
        let digest = image.manifest.descriptor.digest.clone();
        let (here, gone) = (Some(digest.clone()), None);
        let tell = |candidates: &[&Option<Digest>]| {
            let candidates = candidates.iter().copied().cloned().collect();
            lock(&self.told).nameless.insert(digest.clone(), candidates);
        };
        tell(&[&here, &gone]);
        let answer = self.put(digest.as_str(), &image)?;
        assert_eq!(answer.status, 201, "{digest}: {answer:?}");
        let answer = self.send("DELETE", &manifest(digest.as_str()), &[], b"")?;
        match answer.status {
            202 => tell(&[&gone]),
            405 => tell(&[&here]),
            _ => panic!("{digest}: {answer:?}"),
        }
        Ok(())
    }

    /// The channel that this client alone changes.
    fn channel(&self) -> String {
        format!("channel-{}", self.number)
    }

    fn may_become(&self, digest: Option<Digest>) {
        let mut told = lock(&self.told);
        told.channels.entry(self.channel()).or_insert_with(|| vec![None]).push(digest);
    }

    fn bind(&self, version: &str, image: &Image) -> io::Result<()> {
        let digest = image.manifest.descriptor.digest.clone();
        lock(&self.told).news.push((version.to_owned(), image.clone()));
        let answer = self.put(version, image)?;
        let bound = match answer.status {
            201 => digest,
            409 => answer.json()["errors"][0]["detail"]["bound"].as_str().unwrap().parse().unwrap(),
            _ => panic!("{version}: {answer:?}"),
        };
        lock(&self.told).version(version, &bound);
        Ok(())
    }

    fn put(&self, tag: &str, image: &Image) -> io::Result<Answer> {
        let kind = [("content-type", media_type::OCI_MANIFEST)];
        self.send("PUT", &manifest(tag), &kind, &image.manifest.bytes)
    }

    fn blobs(&self, image: &Image) -> io::Result<()> {
        self.blob_in_one_request(&image.config)?;
        self.blob_in_one_request(&image.layer)
    }

    fn blob_in_one_request(&self, bytes: &[u8]) -> io::Result<()> {
        let path = format!("{UPLOADS}?digest={}", Digest::of(bytes));
        self.expect(201, "POST", &path, &[], bytes).map(drop)
    }

    fn blob_in_pieces(&self, bytes: &[u8]) -> io::Result<()> {
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let mut upload = self.expect(202, "POST", UPLOADS, &[], b"")?.header("location").to_owned();
        for (piece, start) in [(first, 0), (second, first.len())] {
            let range = format!("{start}-{}", start + piece.len() - 1);
            let answer = self.expect(202, "PATCH", &upload, &[("content-range", &range)], piece)?;
            answer.header("location").clone_into(&mut upload);
        }
        self.expect(201, "PUT", &format!("{upload}?digest={}", Digest::of(bytes)), &[], b"").map(drop)
    }

    fn expect(
        &self,
        status: u16,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let answer = self.send(method, path, headers, body)?;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        Ok(answer)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let answer = http::send(&self.address, method, path, headers, body)?;
        // Nobody listens any more when the server is about to be killed.
        let _ = self.fulfilled.send(());
        Ok(answer)
    }

    /// An image that nobody made before.
    fn image(&mut self) -> Image {
        let name = format!("{} {} {} {}", self.round, self.number, self.count, self.random.below(u64::MAX));
        Image::new(&name)
    }
}

/// Where uploads begin.
const UPLOADS: &str = "/v2/shop/api/blobs/uploads/";

fn manifest(reference: &str) -> String {
    format!("/v2/shop/api/manifests/{reference}")
}

/// What is pushed.
#[derive(Clone)]
struct Image {
    config: Vec<u8>,
    layer: Vec<u8>,
    manifest: EncodedManifest,
}

impl Image {
    fn new(name: &str) -> Self {
        let config = format!("{{\"author\":\"{name}\"}}").into_bytes();
        let layer: Vec<u8> = name.bytes().cycle().take(LAYER_BYTES).collect();
        let manifest = ImageManifest {
            artifact_type: None,
            config: Descriptor::of(media_type::OCI_CONFIG, &config),
            layers: vec![Descriptor::of(media_type::OCI_LAYER_TAR, &layer)],
            subject: None,
            annotations: Annotations::new(),
        };
        Self { config, layer, manifest: manifest.encode() }
    }

    fn check_blobs(&self, address: &str) {
        for bytes in [&self.config, &self.layer] {
            let route = Route::Blob { name: "shop/api".parse().unwrap(), digest: Digest::of(bytes) };
            let answer = http::send(address, "GET", &route.to_string(), &[], b"").unwrap();
            assert!(answer.status == 200 && answer.body == *bytes, "{route}: {}", answer.status);
        }
    }
}
