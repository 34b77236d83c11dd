//! What an error shows of what a command printed: where some programs say what is wrong before they explain themselves, and
//! where the others do.

use std::collections::VecDeque;

/// How many lines of the beginning.
const FIRST: usize = 8;
/// How many of the end.
const LAST: usize = 12;

/// The first and the last lines of a command, as they come.
#[derive(Debug, Default)]
pub(super) struct Excerpt {
    first: Vec<String>,
    last: VecDeque<String>,
    /// How many came between them.
    between: usize,
}

impl Excerpt {
    pub(super) fn add(&mut self, line: String) {
        if self.first.len() < FIRST {
            return self.first.push(line);
        }
        if self.last.len() == LAST {
            self.last.pop_front();
            self.between += 1;
        }
        self.last.push_back(line);
    }

    /// The lines; one of them says how many are left out.
    pub(super) fn lines(&self) -> Vec<String> {
        let left_out = match self.between {
            0 => None,
            1 => Some("… 1 line …".to_owned()),
            lines => Some(format!("… {lines} lines …")),
        };
        self.first.iter().cloned().chain(left_out).chain(self.last.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_shown_whole_and_of_what_is_long_both_ends() {
        for (lines, between) in [(0, None), (20, None), (21, Some("… 1 line …")), (98, Some("… 78 lines …"))]
        {
            let mut excerpt = Excerpt::default();
            (0..lines).for_each(|line| excerpt.add(line.to_string()));
            let shown = excerpt.lines();
            let expected = (0..lines).filter(|line| *line < FIRST || line + LAST >= lines);
            let expected: Vec<_> = expected.map(|line| line.to_string()).collect();
            assert_eq!(
                shown.iter().filter(|line| !line.starts_with('…')).collect::<Vec<_>>(),
                expected.iter().collect::<Vec<_>>()
            );
            assert_eq!(shown.get(FIRST).filter(|line| line.starts_with('…')).map(String::as_str), between);
        }
    }
}
