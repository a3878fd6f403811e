//! What pages for browsers have in common: they are made here, need no script and nothing from elsewhere.

use std::fmt::{self, Write as _};

use axum::http::{HeaderName, HeaderValue, header};

/// A page with its headers.
pub(super) type Page = ([(HeaderName, HeaderValue); 3], String);

/// The headers that go with a page: a browser that obeys them loads nothing else, runs nothing and shows the page in no frame.
pub(super) fn page(text: String) -> Page {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, text)
}

/// Something as text of HTML, also between the quotes of an attribute.
pub(super) struct Html<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Html<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaped(f), "{}", self.0)
    }
}

struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '&' => self.0.write_str("&amp;"),
            '"' => self.0.write_str("&quot;"),
            c => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_becomes_markup() {
        assert_eq!(Html("<b onload=\"x\">&amp;").to_string(), "&lt;b onload=&quot;x&quot;&gt;&amp;amp;");
    }
}
