//! The pages of a list.

use http::HeaderMap;
use http::header::LINK;

use super::ClientError;

const MAX_PAGES: usize = 10_000;

/// The pages of a list, one `Link` after the other (RFC 8288, `rel="next"`).
pub(super) struct Pages {
    next: Option<String>,
    seen: usize,
}

impl Pages {
    pub(super) fn from(first: String) -> Self {
        Self { next: Some(first), seen: 0 }
    }

    /// Where the next page is; `None`: there is none.
    pub(super) fn next(&mut self, operation: &str) -> Result<Option<String>, ClientError> {
        self.seen += 1;
        if self.seen > MAX_PAGES {
            let problem = format!("the list has more than {MAX_PAGES} pages");
            return Err(ClientError::Protocol { operation: operation.to_owned(), problem });
        }
        Ok(self.next.take())
    }

    /// Remembers the page that an answer names.
    pub(super) fn follow(&mut self, headers: &HeaderMap) {
        let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        self.next = links.flat_map(|links| links.split(',')).find_map(next_link);
    }
}

fn next_link(link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').any(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or_default();
        key.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
    });
    next.then(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_any_spelling_of_a_link() {
        let cases = [
            (r#"</v2/a/tags/list?last=x&n=2>; rel="next""#, Some("/v2/a/tags/list?last=x&n=2")),
            ("<http://h/x>;rel=next", Some("http://h/x")),
            (r#"</p>; rel="prev", </n>; title="a"; rel="next""#, Some("/n")),
            (r#"</p>; rel="prev""#, None),
            ("nonsense", None),
        ];
        for (header, expected) in cases {
            let mut pages = Pages::from(String::new());
            pages.follow(&HeaderMap::from_iter([(LINK, header.parse().unwrap())]));
            assert_eq!(pages.next.as_deref(), expected, "{header}");
        }
    }
}
