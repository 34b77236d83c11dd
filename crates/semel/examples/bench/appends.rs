//! How many entries a second are durable: one process, then several that take turns at the same store.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use semel_model::digest::Digest;
use semel_model::entry::{Change, ChannelMoved};
use semel_store::{Place, Store};

use crate::fill::COMPONENT;
use crate::project::output;
use crate::scratch::Scratch;
use crate::{Error, Line};

/// The word that makes this program a writer: `append-entries STORE KEYS COUNT NAME`.
pub(crate) const WRITER: &str = "append-entries";
/// How many entries are written in all, by however many writers.
const ENTRIES: u32 = 400;

pub(crate) fn measure(scratch: &Scratch) -> Result<Vec<Line>, Error> {
    let mut lines = vec![Line::fact(
        "peer: append 1 KiB to a file and fdatasync",
        rate(ENTRIES, append_to_file(scratch)?),
    )];
    for writers in [1, 4] {
        let (took, fastest) = race(scratch, writers)?;
        let what = format!("{writers} process{}", if writers == 1 { "" } else { "es" });
        lines.push(Line::fact(what, rate(ENTRIES, took)));
        if writers > 1 {
            let share = fastest.as_secs_f64() / took.as_secs_f64() * 100.0;
            lines.push(Line::fact("  the first of them is done after", format!("{share:.0} % of the time")));
        }
    }
    let started = Instant::now();
    output(scratch.semel(&["audit", "verify"]))?;
    lines.push(Line::fact(
        "semel audit verify of the whole store",
        format!("{:.1} s", started.elapsed().as_secs_f64()),
    ));
    Ok(lines)
}

fn rate(count: u32, took: Duration) -> String {
    format!("{:.0} a second", f64::from(count) / took.as_secs_f64())
}

fn append_to_file(scratch: &Scratch) -> Result<Duration, Error> {
    let mut file = std::fs::File::options().append(true).create(true).open(scratch.path("appended"))?;
    let started = Instant::now();
    for _ in 0..ENTRIES {
        file.write_all(&[b'x'; 1024])?;
        file.sync_data()?;
    }
    Ok(started.elapsed())
}

/// How long all writers together take, and the fastest of them.
fn race(scratch: &Scratch, writers: u32) -> Result<(Duration, Duration), Error> {
    let place = scratch.store();
    let program = std::env::current_exe()?;
    let start = |number: u32| -> Result<Child, Error> {
        let words = [
            WRITER.to_owned(),
            place.dir.display().to_string(),
            place.keys.display().to_string(),
            (ENTRIES / writers).to_string(),
            format!("writer-{writers}-{number}"),
        ];
        let mut command = scratch.command(&program, &words);
        Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
    };
    let mut children: Vec<Child> = (0..writers).map(start).collect::<Result<_, _>>()?;
    for child in &mut children {
        read_line(child)?;
    }
    let started = Instant::now();
    // Closing its standard input tells a writer to begin.
    children.iter_mut().for_each(|child| drop(child.stdin.take()));
    let mut fastest = Duration::MAX;
    for mut child in children {
        let took = Duration::from_millis(read_line(&mut child)?.parse()?);
        fastest = fastest.min(took);
        if !child.wait()?.success() {
            return Err("a writer failed".into());
        }
    }
    Ok((started.elapsed(), fastest))
}

/// One line of a child, byte by byte: nothing behind it may be lost.
fn read_line(child: &mut Child) -> Result<String, Error> {
    use std::io::Read as _;
    let stdout = child.stdout.as_mut().ok_or("a writer has a standard output")?;
    let mut line = Vec::new();
    let mut byte = [0];
    while stdout.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    Ok(String::from_utf8(line)?)
}

/// A writer: opens the store, waits for the start, appends, and says how many milliseconds that took.
pub(crate) async fn write(words: &[String]) -> Result<(), Error> {
    let [dir, keys, count, name] = words else {
        return Err("usage: append-entries STORE KEYS COUNT NAME".into());
    };
    let store = Store::open(&Place::embedded(dir.into(), keys.into())).await?;
    let actor = store.local_actor("bench", "bench").await?;
    println!("ready");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    let started = Instant::now();
    let mut from = None;
    for number in 0..count.parse::<u32>()? {
        let to = Some(Digest::of(format!("{name} {number}").as_bytes()));
        let moved = ChannelMoved {
            component: COMPONENT.parse()?,
            channel: name.parse()?,
            from: from.take(),
            to: to.clone(),
        };
        store.turn().await?.record(&actor, Timestamp::UNIX_EPOCH, vec![Change::ChannelMoved(moved)]).await?;
        from = to;
    }
    println!("{}", started.elapsed().as_millis());
    Ok(())
}
