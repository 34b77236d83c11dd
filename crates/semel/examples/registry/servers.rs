//! The servers that are compared, each as a process on loopback with a directory of its own.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;
use crate::scratch::Scratch;

pub(crate) const SEMEL: &str = "semel";
pub(crate) const DOCKER_REGISTRY: &str = "docker-registry";
pub(crate) const NGINX: &str = "nginx";

/// How long a server may take to answer for the first time.
const START: Duration = Duration::from_secs(60);
/// How long a server may take to end by itself.
const END: Duration = Duration::from_secs(3);
/// How often a server that starts or ends is looked at.
const LOOK: Duration = Duration::from_micros(200);

/// A server that answers. Ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    child: Child,
}

/// A server that could be started.
#[derive(Debug)]
pub(crate) struct Recipe {
    name: &'static str,
    address: SocketAddr,
    command: Command,
    /// What it says while it runs, for when it does not start.
    log: PathBuf,
}

impl Recipe {
    /// `semel serve` on a store in the directory `dir`, which is made when it is not there.
    pub(crate) fn semel(scratch: &Scratch, dir: &Path) -> Result<Self, Error> {
        let address = free_address()?;
        let store = dir.display().to_string();
        let command = scratch.semel(&["serve", "--listen", &address.to_string(), "--store", &store]);
        Ok(Self { name: SEMEL, address, command, log: dir.with_extension("log") })
    }

    /// `docker-registry` with files in the directory `dir`.
    pub(crate) fn docker_registry(scratch: &Scratch, dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir)?;
        let address = free_address()?;
        let config = dir.join("config.yml");
        let text = DOCKER_REGISTRY_CONFIG
            .replace("@DIR@", &dir.display().to_string())
            .replace("@ADDRESS@", &address.to_string());
        write(&config, text.as_bytes())?;
        let words = ["serve".to_owned(), config.display().to_string()];
        let command = scratch.command(Path::new("docker-registry"), &words);
        Ok(Self { name: DOCKER_REGISTRY, address, command, log: dir.join("log") })
    }

    /// `nginx` with the files below `dir`/files, at the paths that a registry gives them.
    pub(crate) fn nginx(scratch: &Scratch, dir: &Path) -> Result<Self, Error> {
        // Registries answer `/v2/`; so does this, for whoever asks whether it is up.
        fs::create_dir_all(dir.join("files/v2"))?;
        write(&dir.join("files/v2/index.html"), b"{}")?;
        let address = free_address()?;
        let config = dir.join("nginx.conf");
        let text = NGINX_CONFIG
            .replace("@DIR@", &dir.display().to_string())
            .replace("@ADDRESS@", &address.to_string());
        write(&config, text.as_bytes())?;
        let words = ["-e", "stderr", "-p", &dir.display().to_string(), "-c", &config.display().to_string()]
            .map(str::to_owned);
        // Debian's place for it is not on everybody's PATH.
        let usual = Path::new("/usr/sbin/nginx");
        let program = if usual.exists() { usual } else { Path::new("nginx") };
        Ok(Self { name: NGINX, address, command: scratch.command(program, &words), log: dir.join("log") })
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(self) -> Result<Server, Error> {
        let command = ended_with_this_program(&self.command);
        Ok(Self { command, ..self }.start_timed()?.0)
    }

    /// Starts it without anything in between, and says how long it takes until it answers for the first time.
    pub(crate) fn start_timed(mut self) -> Result<(Server, Duration), Error> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        let child = self.command.spawn().map_err(|error| format!("cannot start {}: {error}", self.name))?;
        let mut server = Server { name: self.name.to_owned(), address: self.address, child };
        while !answers(server.address) {
            if started.elapsed() > START || server.child.try_wait()?.is_some() {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("{} does not answer: {}", self.name, said.trim()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok((server, started.elapsed()))
    }
}

impl Server {
    /// The same server under the name of what it serves.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Its processes: the one that was started, then those that it started itself.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, Error> {
        let first = self.child.id();
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
        let children = children.split_ascii_whitespace().map(str::parse);
        Ok(std::iter::once(Ok(first)).chain(children).collect::<Result<_, _>>()?)
    }

    fn stop(&mut self) -> Result<(), Error> {
        let asked = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > END {
                self.child.kill()?;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before, which whoever asked it something has heard.
        drop(self.stop());
    }
}

/// The command, told by the system to end when this program ends, however that happens.
fn ended_with_this_program(command: &Command) -> Command {
    let mut guarded = Command::new("setpriv");
    guarded.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
    guarded.env_clear();
    guarded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        guarded.current_dir(dir);
    }
    guarded
}

/// An address that nobody listens on.
fn free_address() -> Result<SocketAddr, Error> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(
            format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Writes a configuration, over that of an earlier start.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    Ok(File::options().write(true).create(true).truncate(true).open(path)?.write_all(bytes)?)
}

/// Debian's configuration without its password file and without deleting; errors only.
const DOCKER_REGISTRY_CONFIG: &str = "\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: @DIR@
  delete:
    enabled: false
http:
  addr: @ADDRESS@
";

/// `nginx` as one sets it up for static files: sendfile, full packets, connections that stay. Workers run as the caller, whose
/// directory it is (a caller who is not root need not say so, and is told).
const NGINX_CONFIG: &str = "\
user root;
daemon off;
worker_processes auto;
error_log stderr crit;
pid @DIR@/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  default_type application/octet-stream;
  client_body_temp_path @DIR@/body;
  proxy_temp_path @DIR@/proxy;
  fastcgi_temp_path @DIR@/fastcgi;
  uwsgi_temp_path @DIR@/uwsgi;
  scgi_temp_path @DIR@/scgi;
  server {
    listen @ADDRESS@;
    root @DIR@/files;
  }
}
";
