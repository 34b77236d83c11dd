//! Cause: what a difference comes from, by what it looks like, and what to do about it.
//!
//! Every variation leaves a mark of its own (a name, a time, a place), so a difference with such a mark on the rebuild's
//! side names its cause. The rest are patterns that builds are known for. A cause is likely, never proven; what no rule
//! knows has none.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use semel_model::reproducibility::Difference;

use super::compare::Found;
use super::content::{Detail, What};
use super::rebuild::{CLOCK_AHEAD, HOST, TIME_ZONE_HOURS, TIME_ZONE_WORDS, User, VARIABLE, Variation};

/// What is known about the rebuild.
#[derive(Debug, Clone)]
pub struct Marks {
    /// The directories that its commands saw as their own.
    pub places: Vec<String>,
    /// When it began, by the clock of this machine.
    pub started: Timestamp,
    /// As whom it was made.
    pub user: Option<User>,
    /// What was made otherwise.
    pub made: Vec<Variation>,
}

/// What a difference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The absolute path of the build.
    Path,
    /// The time of the build.
    Clock,
    /// The time zone.
    TimeZone,
    /// The language.
    Locale,
    /// A variable of the environment.
    Environment,
    /// Who builds.
    User,
    /// On which machine.
    Host,
    /// How many processors there are.
    Cores,
    /// The order of what a directory or a table lists.
    Order,
    /// Random or temporary names and numbers.
    Random,
    /// The source's time in a Python cache file.
    PycTime,
    /// The time that gzip writes.
    GzipTime,
    /// The time of an archive's members.
    MemberTime,
    /// The owner of an archive's members.
    MemberOwner,
    /// The build id alone.
    BuildId,
}

impl Cause {
    /// In the words of the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "absolute build path",
            Self::Clock => "clock",
            Self::TimeZone => "time zone",
            Self::Locale => "locale",
            Self::Environment => "environment variables",
            Self::User => "user name or number",
            Self::Host => "host name",
            Self::Cores => "number of processors",
            Self::Order => "order",
            Self::Random => "random or temporary value",
            Self::PycTime => "time of the source in a .pyc file",
            Self::GzipTime => "time in a gzip header",
            Self::MemberTime => "time of archive members",
            Self::MemberOwner => "owner of archive members",
            Self::BuildId => "build id",
        }
    }

    /// What usually helps.
    pub fn fix(self) -> &'static str {
        match self {
            Self::Path => {
                "C and C++: -ffile-prefix-map=$PWD=.   Rust: RUSTFLAGS=\"--remap-path-prefix=$PWD=.\"   Go: -trimpath   else: write paths relative to the project"
            }
            Self::Clock => "use $SOURCE_DATE_EPOCH (date -u -d @$SOURCE_DATE_EPOCH)",
            Self::TimeZone => "write times in UTC (date -u), or set [build] env TZ = \"UTC\"",
            Self::Locale => "set [build] env LC_ALL = \"C.UTF-8\"",
            Self::Environment => "write only the variables that are meant, not all of them",
            Self::User => {
                "do not write the user (whoami, id, $USER); tar: --owner=0 --group=0 --numeric-owner"
            }
            Self::Host => "do not write the name of the machine (hostname, uname -n)",
            Self::Cores => {
                "do not write the number of processors, and split work by what there is to do (nproc, -j)"
            }
            Self::Order => {
                "sort what is listed: LC_ALL=C sort, sorted(os.listdir()), PYTHONHASHSEED=0 for sets, sorted keys for maps"
            }
            Self::Random => {
                "derive names from the content; keep random values, process ids and the names of temporary files out"
            }
            Self::PycTime => "python3 -m compileall --invalidation-mode unchecked-hash",
            Self::GzipTime => "gzip -n",
            Self::MemberTime => {
                "zip -X after touch -d @$SOURCE_DATE_EPOCH on all files; ar: ar rcD; tar: --mtime=@$SOURCE_DATE_EPOCH"
            }
            Self::MemberOwner => "zip -X; ar: ar rcD; tar: --owner=0 --group=0 --numeric-owner",
            Self::BuildId => "link with -Wl,--build-id=none, or strip before the id is made",
        }
    }
}

/// How much of a difference is told.
const TOLD: usize = 160;

/// A place where two artefacts differ, with the way that says most and what it comes from.
pub fn explain(found: &Found, marks: &Marks) -> Difference {
    let known = found.details.iter().find_map(|detail| Some((detail, cause_of(detail, marks)?)));
    let (detail, cause) = match known {
        Some((detail, cause)) => (detail, Some(cause)),
        None => (&found.details[0], None),
    };
    let (committed, built) = excerpts(&detail.committed, &detail.built);
    Difference {
        place: found.place.clone(),
        path: found.path.clone(),
        what: detail.what.to_string(),
        committed,
        built,
        cause: cause.map(|cause| cause.as_str().to_owned()),
        fix: cause.map(|cause| cause.fix().to_owned()),
    }
}

/// What a single difference comes from, if a rule knows.
fn cause_of(detail: &Detail, marks: &Marks) -> Option<Cause> {
    match detail.what.innermost() {
        What::BuildId => return Some(Cause::BuildId),
        What::PycTime => return Some(Cause::PycTime),
        What::GzipTime => return Some(Cause::GzipTime),
        What::MemberTime(_) => return Some(Cause::MemberTime),
        What::MemberOwner(_) => return Some(Cause::MemberOwner),
        What::LineOrder | What::MemberOrder => return Some(Cause::Order),
        What::Metadata(_) | What::Compression => return None,
        _ if !detail.is_text => return None,
        _ => {}
    }
    let texts = Texts { committed: &detail.committed, built: &detail.built };
    RULES.iter().find(|(rule, _)| rule(&texts, marks)).map(|(_, cause)| *cause)
}

type Rule = fn(&Texts<'_>, &Marks) -> bool;

/// In this order: what is sure comes before what is likely.
const RULES: [(Rule, Cause); 11] = [
    (|texts, _| texts.came(VARIABLE.0) || texts.came(VARIABLE.1), Cause::Environment),
    (|texts, marks| marks.places.iter().any(|place| texts.came(place)), Cause::Path),
    (|texts, marks| marks.made.contains(&Variation::Host) && texts.came(HOST), Cause::Host),
    (is_user, Cause::User),
    (is_time_zone, Cause::TimeZone),
    (is_clock, Cause::Clock),
    (|texts, _| TIME_ZONE_WORDS.iter().any(|word| texts.came(word)), Cause::TimeZone),
    (is_order, Cause::Order),
    (is_cores, Cause::Cores),
    (is_locale, Cause::Locale),
    (is_random, Cause::Random),
];

struct Texts<'a> {
    committed: &'a str,
    built: &'a str,
}

impl Texts<'_> {
    /// Whether only the rebuild has it.
    fn came(&self, mark: &str) -> bool {
        !mark.is_empty() && self.built.contains(mark) && !self.committed.contains(mark)
    }

    /// The words at the same places that differ; nothing if one has more words than the other.
    fn differing_words(&self) -> Vec<(&str, &str)> {
        let (words, twins) = (words(self.committed), words(self.built));
        if words.len() != twins.len() {
            return Vec::new();
        }
        words.into_iter().zip(twins).filter(|(word, twin)| word != twin).collect()
    }
}

fn words(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    text.split(|c| !is_part(c)).filter(|word| !word.is_empty()).collect()
}

fn is_user(texts: &Texts<'_>, marks: &Marks) -> bool {
    let Some(user) = marks.user.as_ref().filter(|_| marks.made.contains(&Variation::User)) else {
        return false;
    };
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    let came = |name: &str| words(texts.built).contains(&name) && !words(texts.committed).contains(&name);
    // A small number alone may be anything: only where nothing else than it and the name differ.
    let numbers = texts.differing_words();
    came(&user.name)
        || (texts.built.contains("uid=") && came(&uid))
        || (user.uid > 1
            && !numbers.is_empty()
            && numbers.iter().all(|(_, twin)| *twin == uid || *twin == gid))
}

/// The same time of day at both sides, but for the hours between the time zones.
fn is_time_zone(texts: &Texts<'_>, marks: &Marks) -> bool {
    let (Some(one), Some(other)) = (time_of_day(texts.committed), time_of_day(texts.built)) else {
        return false;
    };
    marks.made.contains(&Variation::TimeZone)
        && one.1 == other.1
        && (other.0 - one.0).rem_euclid(24) == TIME_ZONE_HOURS
}

/// The hour, and the rest of the first `HH:MM`.
fn time_of_day(text: &str) -> Option<(i64, &str)> {
    let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let at = text.match_indices(':').map(|(at, _)| at).find(|at| {
        *at >= 2 && is_digit(at - 2) && is_digit(at - 1) && is_digit(at + 1) && is_digit(at + 2)
    })?;
    let end = if text.as_bytes().get(at + 3) == Some(&b':') && is_digit(at + 4) { at + 6 } else { at + 3 };
    Some((text.get(at - 2..at)?.parse().ok()?, text.get(at + 1..end)?))
}

/// A time of the rebuild that what was built before does not have, or a time of day on both sides.
fn is_clock(texts: &Texts<'_>, marks: &Marks) -> bool {
    let known = times(texts.committed);
    let ahead = marks.started.checked_add(CLOCK_AHEAD).unwrap_or(marks.started);
    let of_rebuild = |time: &i64| {
        [marks.started, ahead].iter().any(|now| (-DAY..=2 * DAY).contains(&(time - now.as_second())))
    };
    let came = times(texts.built).into_iter().any(|time| of_rebuild(&time) && !known.contains(&time));
    let of_day = (time_of_day(texts.committed), time_of_day(texts.built));
    came || matches!(of_day, (Some(one), Some(other)) if one != other)
}

const DAY: i64 = 86_400;

/// The times that a text names, in seconds since 1970: numbers of seconds to nanoseconds, and dates.
fn times(text: &str) -> Vec<i64> {
    let numbers: Vec<&str> =
        text.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty()).collect();
    let seconds = numbers.iter().filter_map(|digits| match digits.len() {
        10 => digits.parse::<i64>().ok(),
        13 | 16 | 19 => digits[..10].parse().ok(),
        _ => None,
    });
    let together =
        numbers.iter().filter(|digits| digits.len() == 8 || digits.len() == 14).filter_map(|digits| {
            midnight(digits[..4].parse().ok()?, digits[4..6].parse().ok()?, digits[6..8].parse().ok()?)
        });
    let three = numbers
        .windows(3)
        .filter(|three| three[0].len() == 4)
        .filter_map(|three| midnight(three[0].parse().ok()?, three[1].parse().ok()?, three[2].parse().ok()?));
    seconds.chain(together).chain(three).chain(named_months(text)).collect()
}

/// `Nov 22 2026`, `22 Nov 2026`, `Sun Nov 22 19:40:01 UTC 2026`.
fn named_months(text: &str) -> Vec<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words = words(text);
    let near = |at: usize| words[at.saturating_sub(2)..words.len().min(at + 8)].to_vec();
    let dates = words.iter().enumerate().filter_map(|(at, word)| {
        let month = MONTHS.iter().position(|name| word.starts_with(name) && word.len() <= 9)?;
        let numbers: Vec<&str> = near(at);
        let year = numbers.iter().find(|word| word.len() == 4).and_then(|word| word.parse().ok())?;
        let day = [at + 1, at.wrapping_sub(1)].iter().find_map(|at| words.get(*at)?.parse().ok())?;
        midnight(year, i8::try_from(month + 1).ok()?, day)
    });
    dates.collect()
}

fn midnight(year: i16, month: i8, day: i8) -> Option<i64> {
    let date = Date::new(year, month, day).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// The same words in another order.
fn is_order(texts: &Texts<'_>, _: &Marks) -> bool {
    let sorted = |text| {
        let mut words = words(text);
        words.sort_unstable();
        words
    };
    texts.committed != texts.built
        && !words(texts.built).is_empty()
        && sorted(texts.committed) == sorted(texts.built)
}

/// One number became one.
fn is_cores(texts: &Texts<'_>, marks: &Marks) -> bool {
    let differing = texts.differing_words();
    let counted = |word: &str| word.parse::<u32>().is_ok_and(|number| (2..=4096).contains(&number));
    marks.made.contains(&Variation::Cores) && matches!(differing.as_slice(), [(word, "1")] if counted(word))
}

/// A comma for a point in a number, or the other way round.
fn is_locale(texts: &Texts<'_>, marks: &Marks) -> bool {
    let plain = |text: &str| text.replace([',', '.', '\u{a0}', '\u{202f}'], "");
    marks.made.contains(&Variation::Locale)
        && texts.committed != texts.built
        && plain(texts.committed) == plain(texts.built)
}

/// Words that look alike and say nothing: numbers, hexadecimal digits, names such as `tmp.x3Jk91`.
fn is_random(texts: &Texts<'_>, _: &Marks) -> bool {
    let differing = texts.differing_words();
    let opaque = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let mixed =
            word.bytes().any(|b| b.is_ascii_lowercase()) && word.bytes().any(|b| b.is_ascii_uppercase());
        digits == word.len() || (word.len() >= 6 && (digits > 0 || mixed || word.contains("tmp")))
    };
    let alike =
        |(word, twin): &(&str, &str)| opaque(word) && opaque(twin) && word.len().abs_diff(twin.len()) <= 12;
    !differing.is_empty() && differing.iter().all(alike)
}

/// The parts of two texts around where they begin to differ.
fn excerpts(one: &str, other: &str) -> (String, String) {
    let common = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let begin =
        if one.chars().count().max(other.chars().count()) <= TOLD { 0 } else { common.saturating_sub(40) };
    let clip =
        |text: &str| text.chars().skip(begin).take(TOLD).filter(|c| !c.is_control()).collect::<String>();
    (clip(one), clip(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks {
            places: vec!["/built/bX/another/place".to_owned()],
            started: "2026-11-22T19:40:00Z".parse().unwrap(),
            user: Some(User { name: "daemon".to_owned(), uid: 7, gid: 7 }),
            made: vec![
                Variation::Clock,
                Variation::TimeZone,
                Variation::Locale,
                Variation::User,
                Variation::Host,
                Variation::Cores,
            ],
        }
    }

    #[test]
    fn a_difference_has_the_cause_that_it_looks_like() {
        for (committed, built, expected) in [
            (
                "at /built/bA/tree/src/main.rs:3",
                "at /built/bX/another/place/tree/src/main.rs:3",
                Some(Cause::Path),
            ),
            ("built 1795376400", "built 1829936401", Some(Cause::Clock)),
            ("built 1795376400123", "built 1829936401007", Some(Cause::Clock)),
            ("built 2026-11-22T19:40:00", "built 2027-12-27T19:41:07", Some(Cause::Clock)),
            ("built 20261122", "built 20271227", Some(Cause::Clock)),
            ("built Sun Nov 22 19:40:01 UTC 2026", "built Mon Dec 27 19:41:00 UTC 2027", Some(Cause::Clock)),
            ("Nov 22 2026", "Dec 27 2027", Some(Cause::Clock)),
            ("at 19:40:01", "at 19:41:07", Some(Cause::Clock)),
            ("2024-05-06 07:08", "2024-05-06 21:08", Some(Cause::TimeZone)),
            ("zone UTC", "zone VARIED", Some(Cause::TimeZone)),
            ("PATH HOME", "PATH HOME SEMEL_VARIED_NAME", Some(Cause::Environment)),
            ("on runner-17", "on semel-varied-host", Some(Cause::Host)),
            ("by root", "by daemon", Some(Cause::User)),
            ("uid=0(root)", "uid=7(daemon)", Some(Cause::User)),
            ("{'a', 'b', 'c'}", "{'c', 'a', 'b'}", Some(Cause::Order)),
            ("{\"jobs\": 16}", "{\"jobs\": 1}", Some(Cause::Cores)),
            ("1.5 of 2.000", "1,5 of 2,000", Some(Cause::Locale)),
            ("id 6f1c2e9a-0d", "id 91be07f2-3c", Some(Cause::Random)),
            ("/tmp/tmp.Ab3xYq", "/tmp/tmp.Zk19Pd", Some(Cause::Random)),
            ("pid 4711", "pid 815", Some(Cause::Random)),
            ("the cat", "the dog", None),
            ("one line", "one line more", None),
        ] {
            let detail = Detail::new(What::Line(1), committed, built);
            assert_eq!(cause_of(&detail, &marks()), expected, "{committed} → {built}");
        }
        let code = Detail::new(What::Offset(1), "05 ac e7 ff", "64 ac e7 ff");
        assert_eq!(
            cause_of(&Detail { is_text: false, ..code }, &marks()),
            None,
            "digits of bytes are no words"
        );
    }

    #[test]
    fn a_long_difference_is_told_from_shortly_before_it_begins() {
        let long = "x".repeat(500);
        let (one, other) = excerpts(&format!("{long}1"), &format!("{long}2"));
        assert_eq!((one.len(), other.len()), (41, 41));
        assert!(one.ends_with('1') && other.ends_with('2'));
        assert_eq!(excerpts("a\tb", "a\tc"), ("ab".to_owned(), "ac".to_owned()));
    }
}
