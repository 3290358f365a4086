//! The page itself: files within the program, for it must come up when nothing else does.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::refusal::Refusal;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name below `/page/`, media type, text.
const FILES: [(&str, &str, &str); 12] = [
    ("page.css", CSS, include_str!("web/page.css")),
    ("parts.css", CSS, include_str!("web/parts.css")),
    ("icon.svg", SVG, include_str!("web/icon.svg")),
    ("main.js", SCRIPT, include_str!("web/main.js")),
    ("ask.js", SCRIPT, include_str!("web/ask.js")),
    ("dom.js", SCRIPT, include_str!("web/dom.js")),
    ("words.js", SCRIPT, include_str!("web/words.js")),
    ("node.js", SCRIPT, include_str!("web/node.js")),
    ("services.js", SCRIPT, include_str!("web/services.js")),
    ("split.js", SCRIPT, include_str!("web/split.js")),
    ("lists.js", SCRIPT, include_str!("web/lists.js")),
    ("orders.js", SCRIPT, include_str!("web/orders.js")),
];

pub(super) async fn index() -> Response {
    file(HTML, include_str!("web/index.html"))
}

pub(super) async fn named(Path(name): Path<String>) -> Result<Response, Refusal> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    match found {
        Some((_, media, text)) => Ok(file(media, text)),
        None => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "the page has no such file",
        )),
    }
}

fn file(media: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy of the page forbids what is written into the HTML, and nothing comes from elsewhere.
    #[test]
    fn the_page_names_its_own_files_only() {
        let html = include_str!("web/index.html");
        let names = |text: &'static str, before: &'static str| {
            text.split(before)
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
        };
        for reference in names(html, "src=\"").chain(names(html, "href=\"")) {
            let own = reference.strip_prefix("/page/");
            let known = own.is_some_and(|own| FILES.iter().any(|(name, ..)| *name == own));
            assert!(known || reference.starts_with('#'), "{reference}");
        }
        for forbidden in [
            "style=\"",
            " onclick",
            "javascript:",
            "<style",
            "http://",
            "https://",
        ] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        for (name, media, text) in FILES {
            if media == SCRIPT {
                for module in names(text, "from \"") {
                    let own = module.strip_prefix("./").unwrap();
                    assert!(FILES.iter().any(|(known, ..)| *known == own), "{module}");
                }
                // Text of others must not become markup or script.
                for forbidden in [
                    "innerHTML",
                    "outerHTML",
                    "insertAdjacent",
                    "document.write",
                    "eval(",
                ] {
                    assert!(!text.contains(forbidden), "{forbidden} in {name}");
                }
            }
            assert!(text.lines().count() <= 400, "{name}");
        }
    }
}
