//! All three servers with the same content, at the same paths.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;

use crate::artefact::Artefact;
use crate::http::Connection;
use crate::layer::Layer;
use crate::load::{self, Until, Work};
use crate::push::{self, Upload};
use crate::servers::{Recipe, Server};
use crate::{Bench, Error};

/// The servers, then the directory that they write to, which goes when they have ended.
#[derive(Debug)]
pub(crate) struct Peers {
    nginx: Server,
    docker_registry: Server,
    semel: Server,
    dir: TempDir,
}

impl Peers {
    /// Starts all three, without content.
    pub(crate) fn start(bench: &Bench) -> Result<Self, Error> {
        let dir = bench.space()?;
        let scratch = &bench.scratch;
        Ok(Self {
            nginx: Recipe::nginx(scratch, &dir.path().join("nginx"))?.start()?,
            docker_registry: Recipe::docker_registry(scratch, &dir.path().join("docker-registry"))?
                .start()?,
            semel: Recipe::semel(scratch, &dir.path().join("semel"))?.start()?,
            dir,
        })
    }

    pub(crate) fn all(&self) -> [&Server; 3] {
        [&self.nginx, &self.docker_registry, &self.semel]
    }

    /// Gives a layer to all of them; its path.
    pub(crate) fn publish_layer(&self, component: &str, layer: &Layer) -> Result<String, Error> {
        for server in [&self.docker_registry, &self.semel] {
            publish_layer(server, component, layer)?;
        }
        let path = blob_path(component, layer);
        self.put_file(&path, layer)?;
        Ok(path)
    }

    /// Gives an artefact to all of them; the paths of its manifest by tag and by digest.
    pub(crate) fn publish_artefact(
        &self,
        component: &str,
        artefact: &Artefact,
    ) -> Result<[String; 2], Error> {
        for server in [&self.docker_registry, &self.semel] {
            publish_artefact(server, component, artefact)?;
        }
        let paths = manifest_paths(component, artefact);
        for path in &paths {
            self.file(path)?.write_all(&artefact.manifest)?;
        }
        Ok(paths)
    }

    fn put_file(&self, path: &str, layer: &Layer) -> Result<(), Error> {
        let mut file = BufWriter::new(self.file(path)?);
        layer.pieces().try_for_each(|piece| file.write_all(&piece))?;
        Ok(file.flush()?)
    }

    /// A new file where `nginx` serves this path.
    fn file(&self, path: &str) -> Result<File, Error> {
        let file = self.dir.path().join("nginx/files").join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().ok_or("a path has a directory")?)?;
        Ok(File::options().write(true).create_new(true).open(file)?)
    }
}

/// Where a registry serves a blob.
pub(crate) fn blob_path(component: &str, layer: &Layer) -> String {
    format!("/v2/{component}/blobs/{}", layer.digest)
}

/// Where a registry serves a manifest: by tag, and by digest.
pub(crate) fn manifest_paths(component: &str, artefact: &Artefact) -> [String; 2] {
    let path = |reference: &str| format!("/v2/{component}/manifests/{reference}");
    [path(&artefact.version), path(artefact.digest.as_str())]
}

/// Pushes a layer, once.
pub(crate) fn publish_layer(server: &Server, component: &str, layer: &Layer) -> Result<(), Error> {
    let (component, layer) = (component.to_owned(), layer.clone());
    once(server, PublishLayer { server: server.address, component, layer })
}

/// Pushes an artefact, once.
pub(crate) fn publish_artefact(server: &Server, component: &str, artefact: &Artefact) -> Result<(), Error> {
    let (component, artefact) = (component.to_owned(), artefact.clone());
    once(server, PublishArtefact { server: server.address, component, artefact })
}

fn once<W: Work>(server: &Server, work: W) -> Result<(), Error> {
    let done = load::run(server.address, 1, &Arc::new(work), Until::Done(1));
    done.map(drop).map_err(|error| format!("{}: {error}", server.name).into())
}

struct PublishLayer {
    server: SocketAddr,
    component: String,
    layer: Layer,
}

impl Work for PublishLayer {
    async fn once(&self, connection: &mut Connection) -> Result<(), Error> {
        push::blob(connection, self.server, &self.component, &self.layer, Upload::Monolithic).await
    }
}

struct PublishArtefact {
    server: SocketAddr,
    component: String,
    artefact: Artefact,
}

impl Work for PublishArtefact {
    async fn once(&self, connection: &mut Connection) -> Result<(), Error> {
        self.artefact.push(connection, self.server, &self.component).await
    }
}
