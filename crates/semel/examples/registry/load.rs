//! Load: connections that repeat a piece of work, for a time or a number of times.
//!
//! One thread per processor, each with a runtime of its own, so that a client with 64 connections costs little more than
//! one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Error;
use crate::http::Connection;

/// What a connection does again and again.
pub(crate) trait Work: Send + Sync + 'static {
    /// Does it once. Anything unexpected is an error, which ends the measurement.
    fn once(&self, connection: &mut Connection) -> impl Future<Output = Result<(), Error>> + Send;
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After a time, in the middle of whatever is under way. Bytes count until then, work only when it is finished.
    Passed(Duration),
    /// When all connections together have done the work so often.
    Done(u64),
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) took: Duration,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// How long each piece of work took, in order.
    pub(crate) latencies: Vec<Duration>,
}

/// Connects, then does the work on all connections at once.
pub(crate) fn run<W: Work>(
    address: SocketAddr,
    connections: usize,
    work: &Arc<W>,
    until: Until,
) -> Result<Outcome, Error> {
    let threads = std::thread::available_parallelism()?.get().min(connections);
    let mut shares: Vec<Vec<std::net::TcpStream>> = (0..threads).map(|_| Vec::new()).collect();
    for number in 0..connections {
        shares[number % threads].push(Connection::open(address)?);
    }
    let end = End::new(until);
    let started = Instant::now();
    let outcomes: Vec<Result<Outcome, Error>> = std::thread::scope(|scope| {
        let start = |share| scope.spawn(|| one_thread(share, work, &end));
        let running: Vec<_> = shares.into_iter().map(start).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a client panicked".into())))
            .collect()
    });
    let mut total = Outcome { took: started.elapsed(), ..Outcome::default() };
    for outcome in outcomes {
        total.add(outcome?);
    }
    total.latencies.sort_unstable();
    Ok(total)
}

fn one_thread<W: Work>(
    share: Vec<std::net::TcpStream>,
    work: &Arc<W>,
    end: &Arc<End>,
) -> Result<Outcome, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for stream in share {
            let connection = Connection::new(stream)?;
            tasks.spawn(one_connection(connection, Arc::clone(work), Arc::clone(end)));
        }
        let mut total = Outcome::default();
        while let Some(outcome) = tasks.join_next().await {
            total.add(outcome??);
        }
        Ok(total)
    })
}

async fn one_connection<W: Work>(
    mut connection: Connection,
    work: Arc<W>,
    end: Arc<End>,
) -> Result<Outcome, Error> {
    let mut latencies = Vec::new();
    let repeated = async {
        while end.goes_on() {
            let started = Instant::now();
            work.once(&mut connection).await?;
            latencies.push(started.elapsed());
        }
        Ok(())
    };
    match end.deadline {
        // Whatever is under way at the deadline is given up.
        Some(deadline) => {
            let in_time: Result<Result<(), Error>, _> =
                tokio::time::timeout_at(deadline.into(), repeated).await;
            in_time.unwrap_or(Ok(()))
        }
        None => repeated.await,
    }?;
    Ok(Outcome { took: Duration::ZERO, received: connection.received, sent: connection.sent, latencies })
}

/// When to stop, known to all connections.
#[derive(Debug)]
struct End {
    deadline: Option<Instant>,
    left: Option<AtomicU64>,
}

impl End {
    fn new(until: Until) -> Arc<Self> {
        Arc::new(match until {
            Until::Passed(time) => Self { deadline: Some(Instant::now() + time), left: None },
            Until::Done(times) => Self { deadline: None, left: Some(AtomicU64::new(times)) },
        })
    }

    /// Takes one of what is left to do.
    fn goes_on(&self) -> bool {
        let Some(left) = &self.left else { return true };
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.received += other.received;
        self.sent += other.sent;
        self.latencies.extend(other.latencies);
    }

    /// How long the work took that is slower than this share of all; none when nothing was finished.
    pub(crate) fn quantile_millis(&self, share: f64) -> Option<f64> {
        let last = self.latencies.len().checked_sub(1)?;
        let place = (last as f64 * share).round() as usize;
        Some(self.latencies[place].as_secs_f64() * 1_000.0)
    }
}
