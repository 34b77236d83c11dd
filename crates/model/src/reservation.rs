//! Reservation: which build answers a question, and who may take whose result.
//!
//! Builds of the same source (all inputs but the salt) are a *family*: the first one, and one more for each time that
//! somebody had a reason to build the same again.

use serde::{Deserialize, Serialize};

use crate::actor::{Actor, AuthMethod};
use crate::build::Line;

/// A process on some machine, so that another process of that machine can tell that it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Where its number means it: this boot of this machine, and the namespace of process numbers. Says nothing else.
    pub host: String,
    /// Its number.
    pub pid: i32,
    /// Its start, because numbers are used again; compared, never read.
    pub start: String,
}

/// What a builder that is part of this program calls itself in provenance.
pub const LOCAL_BUILDER: &str = "https://semel.dev/builder/local/v1";

/// Who made a published artefact, as the ledger and the provenance say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maker<'a> {
    /// The line that it was built for.
    pub line: &'a Line,
    /// The actor of the entry that published it.
    pub actor: &'a Actor,
    /// The builder's id in its provenance; none: there is no provenance to read.
    pub builder: Option<&'a str>,
}

/// Whether an artefact that was built for one line may be taken for another.
///
/// A branch takes anything: what it gets never looks final. Any other line takes what was built for such a line, and a
/// branch's artefact only if its maker may build this line too. Who asks for the line is allowed to build it, or would not
/// be asking; so its own artefact may be taken. Somebody else's may where both are only claimed to be somebody (method
/// `local`, and the builder of this program): there the store's files are what is trusted, and whoever has them could do
/// anything. A signed-in maker is none but itself.
pub fn may_take(asks: &Line, asker: &Actor, maker: Maker<'_>) -> bool {
    if is_branch(asks) || !is_branch(maker.line) {
        return true;
    }
    let same = maker.actor.issuer == asker.issuer && maker.actor.subject == asker.subject;
    let local = |actor: &Actor| actor.method == AuthMethod::Local;
    match maker.builder {
        None => false,
        Some(_) if same && maker.actor.method == asker.method => true,
        Some(id) => local(maker.actor) && local(asker) && id == LOCAL_BUILDER,
    }
}

/// Whether a line is a branch, whose builds never look final.
pub fn is_branch(line: &Line) -> bool {
    matches!(line, Line::Branch(_))
}

/// A build of the same source, as far as the choice among them needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relative {
    /// Whether its artefact is published.
    pub is_published: bool,
    /// Whether who asks may take it: see [`may_take`].
    pub may_be_taken: bool,
    /// Whether its bytes were removed by a rule.
    pub is_gone: bool,
    /// Why it was built again; none: it is the first of its family.
    pub reason: Option<String>,
}

/// Which build answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The one at this place in the family.
    Member(usize),
    /// A new one, with this salt.
    New {
        /// How many there are before it.
        salt: u32,
        /// Why what there is does not answer, where nobody asked for another one.
        because: Option<Unusable>,
    },
}

/// Why nothing of what was built answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// None of it may be taken.
    Distrusted,
    /// The bytes of what would answer were removed by a rule.
    Gone,
}

/// Chooses among the builds of one source, oldest first.
///
/// Without a reason, the newest published one answers, for what was built again was built to be used; where its bytes are
/// gone, one more is built, which brings them back if it comes out the same. Without a published one, the newest answers.
/// With a reason, what was made for this very reason answers, also when something newer was made for another one since: so a
/// repeated command, a job that is run again and one that has waited find what they asked for. Otherwise the newest answers
/// if it is not finished, else one more is built.
pub fn choose(family: &[Relative], again: Option<&str>) -> Choice {
    let salt = u32::try_from(family.len()).unwrap_or(u32::MAX);
    let Some(newest) = family.last() else { return Choice::New { salt, because: None } };
    let made_for = |reason: &str| {
        let serves = |one: &Relative| one.is_published && one.may_be_taken && !one.is_gone;
        family.iter().rposition(|one| serves(one) && one.reason.as_deref() == Some(reason))
    };
    if let Some(place) = again.and_then(made_for) {
        return Choice::Member(place);
    }
    let answer = match family.iter().rposition(|one| one.is_published && one.may_be_taken) {
        None => Err(Unusable::Distrusted),
        Some(place) if family[place].is_gone => Err(Unusable::Gone),
        Some(place) => Ok(place),
    };
    if !newest.is_published && (again.is_some() || answer.is_err()) {
        return Choice::Member(family.len() - 1);
    }
    match (again, answer) {
        (Some(_), _) => Choice::New { salt, because: None },
        (None, Ok(place)) => Choice::Member(place),
        (None, Err(unusable)) => Choice::New { salt, because: Some(unusable) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::ActorKind;

    fn actor(subject: &str, method: AuthMethod) -> Actor {
        let issuer = if method == AuthMethod::Local { "local" } else { "https://ci.example" };
        let (issuer, subject, via) = (issuer.to_owned(), subject.to_owned(), "api".to_owned());
        Actor { issuer, subject, kind: ActorKind::Person, method, via }
    }

    #[test]
    fn the_trunk_takes_a_branchs_artefact_only_from_who_may_build_the_trunk() {
        let (main, branch) = (Line::Main("main".into()), Line::Branch("feat".into()));
        let (ana, bo) = (actor("ana", AuthMethod::Local), actor("bo", AuthMethod::Local));
        let (job, other) = (actor("main job", AuthMethod::Oidc), actor("fork job", AuthMethod::Oidc));
        let here = Some(LOCAL_BUILDER);
        let cases = [
            ("a branch takes anything", &branch, &ana, &branch, &other, here, true),
            ("the trunk takes the trunk's", &main, &ana, &main, &other, here, true),
            ("one's own", &main, &job, &branch, &job, Some("https://ci.example/builder"), true),
            ("both local", &main, &ana, &branch, &bo, here, true),
            ("a builder that nobody knows", &main, &ana, &branch, &bo, Some("https://x.example"), false),
            ("another job's", &main, &job, &branch, &other, here, false),
            ("a claim, taken by a job", &main, &job, &branch, &ana, here, false),
            ("a job's, taken by a claim", &main, &ana, &branch, &job, here, false),
            ("nothing is known of how", &main, &ana, &branch, &ana, None, false),
        ];
        for (what, asks, asker, line, made_by, builder, expected) in cases {
            let maker = Maker { line, actor: made_by, builder };
            assert_eq!(may_take(asks, asker, maker), expected, "{what}");
        }
    }

    #[test]
    fn what_was_built_again_answers_from_then_on_and_the_same_reason_builds_once() {
        let one = |is_published, may_be_taken, reason: Option<&str>| Relative {
            is_published,
            may_be_taken,
            is_gone: false,
            reason: reason.map(str::to_owned),
        };
        let gone = |one: &Relative| Relative { is_gone: true, ..one.clone() };
        let first = one(true, true, None);
        let open = one(false, true, None);
        let again = one(true, true, Some("cve"));
        let opened = one(false, true, Some("cve"));
        let (begun, other) = (one(false, true, Some("other")), one(true, true, Some("other")));
        let foreign = one(true, false, None);
        let new = |salt| Choice::New { salt, because: None };
        let instead = |salt, because| Choice::New { salt, because: Some(because) };
        let cases = [
            (vec![], None, new(0)),
            (vec![], Some("cve"), new(0)),
            (vec![first.clone()], None, Choice::Member(0)),
            (vec![first.clone()], Some("cve"), new(1)),
            (vec![open.clone()], None, Choice::Member(0)),
            (vec![open], Some("cve"), Choice::Member(0)),
            (vec![first.clone(), opened.clone()], None, Choice::Member(0)),
            (vec![first.clone(), opened.clone()], Some("cve"), Choice::Member(1)),
            (vec![first.clone(), opened], Some("another"), Choice::Member(1)),
            (vec![first.clone(), again.clone()], None, Choice::Member(1)),
            (vec![first.clone(), again.clone()], Some("cve"), Choice::Member(1)),
            (vec![first.clone(), again.clone()], Some("another"), new(2)),
            (vec![first.clone(), again.clone(), other.clone()], Some("cve"), Choice::Member(1)),
            (vec![first.clone(), again.clone(), begun], Some("cve"), Choice::Member(1)),
            (vec![first.clone(), again.clone(), other.clone()], None, Choice::Member(2)),
            (vec![first.clone(), gone(&again), other], Some("cve"), new(3)),
            (vec![gone(&first)], None, instead(1, Unusable::Gone)),
            (vec![gone(&first), again.clone()], None, Choice::Member(1)),
            (vec![first.clone(), gone(&again)], None, instead(2, Unusable::Gone)),
            (vec![first.clone(), gone(&again)], Some("cve"), new(2)),
            (vec![gone(&first), one(false, true, Some("gone"))], None, Choice::Member(1)),
            (vec![foreign.clone()], None, instead(1, Unusable::Distrusted)),
            (vec![foreign.clone(), first], None, Choice::Member(1)),
            (vec![foreign, one(false, true, Some("distrusted"))], None, Choice::Member(1)),
        ];
        for (family, reason, expected) in cases {
            assert_eq!(choose(&family, reason), expected, "{family:?} for {reason:?}");
        }
    }
}
