//! The pages that need no file. They are a few kilobytes without script, and look right in light and dark, on a phone and
//! on paper.

use http::StatusCode;

/// For when nothing else answers.
pub const MAINTENANCE_HTML: &str = include_str!("maintenance.html");

/// For whatever went wrong with one request.
pub const ERROR_HTML: &str = include_str!("error.html");

/// What a visitor is told of a status.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    pub title: &'static str,
    pub text: &'static str,
}

/// For people who can't know what the number means.
pub fn words(status: StatusCode) -> Words {
    let (title, text) = match status.as_u16() {
        400 => (
            "This request can’t be understood",
            "Something on the way here garbled it. Going back and trying once more often helps.",
        ),
        401 => ("Please sign in", "This page is only for those who have an account for it."),
        403 => (
            "You can’t go in here",
            "This page is not open to everybody, and your connection isn’t on its list.",
        ),
        404 => (
            "There is nothing here",
            "The address may be mistyped, or what stood here has moved. The start page is a good place to look.",
        ),
        405 => ("That doesn’t work here", "This address exists, but not for what was asked of it."),
        408 => ("That took too long", "The connection was too slow to finish the request. Please try again."),
        413 => ("That is too large", "What was sent is larger than this site takes. A smaller file may do."),
        414 => {
            ("This address is too long", "No page has an address as long as that. The link may be broken.")
        }
        417 => {
            ("That can’t be promised", "The request asks for something special that this site doesn’t do.")
        }
        421 => (
            "Wrong door",
            "This connection was made for another site. Loading the page again opens the right one.",
        ),
        429 => (
            "One moment, please",
            "A lot came from your connection in a short time. Please wait a little, then try again.",
        ),
        431 => (
            "Your browser sent too much",
            "Mostly these are cookies that have piled up. Deleting those of this site helps.",
        ),
        500 => ("Something went wrong", "This is our fault, not yours. Trying again in a moment may help."),
        502 | 503 => (
            "We’ll be back in a moment",
            "The site can’t answer just now. Nothing is wrong on your side; please try again soon.",
        ),
        504 => {
            ("The answer didn’t come in time", "The site is taking too long. Please try again in a moment.")
        }
        other if other < 500 => ("That didn’t work", "The request can’t be answered as it is."),
        _ => {
            ("Something went wrong", "The request can’t be answered just now. Please try again in a moment.")
        }
    };
    Words { title, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_pages_are_small_need_nothing_from_elsewhere_and_tell_the_request_id() {
        for html in [MAINTENANCE_HTML, ERROR_HTML] {
            assert!(html.len() < 6 * 1024, "{}", html.len());
            assert!(html.contains("{{request_id}}") && html.contains("prefers-color-scheme: dark"));
            for foreign in ["<script", "src=", "url(", "@import", "http://", "https://"] {
                assert!(!html.contains(foreign), "{foreign}");
            }
        }
    }

    #[test]
    fn every_status_that_weir_answers_with_has_words_of_its_own() {
        let general = words(StatusCode::IM_A_TEAPOT);
        for status in [400, 401, 403, 404, 405, 408, 413, 414, 417, 421, 429, 431] {
            let own = words(StatusCode::from_u16(status).unwrap());
            assert!(own.title != general.title && own.text.ends_with('.'), "{status}");
        }
    }
}
