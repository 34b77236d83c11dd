//! Looking: what is where, since when, and why. Nothing here changes anything.

pub mod versions;
pub mod channels;
pub mod status;
pub mod history;
pub mod place;
pub mod why;
pub mod commits;
pub mod difference;
pub mod comparison;
pub mod evidence;
