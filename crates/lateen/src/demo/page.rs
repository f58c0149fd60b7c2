//! What does a person see in the browser? One page of HTML without scripts.

use serde_json::Value;

use super::catalogue::BOOKS;

const STYLE: &str = "
  :root { color-scheme: light dark; --ink: #1d2b36; --paper: #f6f1e7; --line: #d8cdb8; --accent: #0b6e75; }
  @media (prefers-color-scheme: dark) { :root { --ink: #e9e2d3; --paper: #17212a; --line: #34434f; --accent: #5fc0c6; } }
  body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.55 Georgia, serif; }
  main { max-width: 42rem; margin: 0 auto; padding: 2rem 1.2rem; }
  header { border-bottom: 3px double var(--line); display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; }
  header strong { font-size: 1.3rem; letter-spacing: .04em; }
  a { color: var(--accent); }
  h1 { margin: 1.4rem 0 .2rem; line-height: 1.2; }
  .facts { opacity: .75; margin: 0 0 1rem; }
  blockquote { margin: 1rem 0; padding: .2rem 0 .2rem 1rem; border-left: 3px solid var(--line); }
  blockquote footer { opacity: .75; }
  .stars { font-size: 1.3rem; letter-spacing: .1em; }
  .stars.red { color: #c8202f; }
  .problem { border: 1px solid #c8202f; border-radius: .3rem; padding: .6rem .8rem; }
  .route { margin-top: 2rem; padding-top: .8rem; border-top: 1px solid var(--line); font: 13px/1.7 ui-monospace, monospace; }
  .route b { background: var(--accent); color: var(--paper); border-radius: .25rem; padding: .1rem .45rem; font-weight: normal; }
";

/// The page of a book. `content` is what programs get as JSON; `served_by` names everyone who took part.
pub(crate) fn render(id: usize, content: &Value, served_by: &str) -> String {
    let reader = content["reader"].as_str();
    let user = reader.map(|reader| format!("&amp;user={}", escape(reader))).unwrap_or_default();
    let shelf: Vec<String> = BOOKS
        .iter()
        .enumerate()
        .map(|(place, book)| match place == id {
            true => escape(book.title),
            false => format!("<a href=\"/productpage?id={place}{user}\">{}</a>", escape(book.title)),
        })
        .collect();
    let greeting = match reader {
        Some(reader) => {
            format!("reading as <b>{}</b> · <a href=\"/productpage?id={id}\">leave</a>", escape(reader))
        }
        None => format!("<a href=\"/productpage?id={id}&amp;user=nadia\">read as nadia</a>"),
    };
    let mut parts = String::new();
    for problem in content["problems"].as_array().into_iter().flatten() {
        parts.push_str(&format!("<p class=\"problem\">{}</p>\n", escape(text(problem))));
    }
    parts.push_str(&book(&content["book"]));
    parts.push_str(&reviews(&content["reviews"]));
    let route: Vec<String> = served_by.split(", ").map(|part| format!("<b>{}</b>", escape(part))).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>The Lateen Bookstore</title>\
         <style>{STYLE}</style></head>\n<body><main>\n\
         <header><strong>The Lateen Bookstore</strong><span>{greeting}</span></header>\n\
         <p>{shelf}</p>\n{parts}\
         <p class=\"route\">this page came from<br>{route}<br>\
         Reload to be routed again; change the weights in routes.yaml to move the odds.</p>\n\
         </main></body>\n</html>\n",
        shelf = shelf.join(" · "),
        route = route.join(" + "),
    )
}

fn book(book: &Value) -> String {
    if book.is_null() {
        return String::new();
    }
    format!(
        "<h1>{}</h1>\n<p class=\"facts\">{} · {} · {} pages</p>\n<p>{}</p>\n",
        escape(text(&book["title"])),
        escape(text(&book["author"])),
        book["year"],
        book["pages"],
        escape(text(&book["summary"])),
    )
}

fn reviews(reviews: &Value) -> String {
    let colour = reviews["colour"].as_str();
    let mut out = String::new();
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let stars = match (review["stars"].as_u64(), colour) {
            (Some(stars), Some(colour)) => {
                let full = usize::try_from(stars).unwrap_or(5).min(5);
                let shown = "★".repeat(full) + &"☆".repeat(5 - full);
                format!("<br><span class=\"stars {}\" title=\"{stars} of 5\">{shown}</span>", escape(colour))
            }
            _ => String::new(),
        };
        out.push_str(&format!(
            "<blockquote>{}{stars}<footer>{}</footer></blockquote>\n",
            escape(text(&review["text"])),
            escape(text(&review["reader"])),
        ));
    }
    out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text as it may stand in an element or between quotes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stars_are_as_many_as_were_given_in_the_colour_of_the_version() {
        let page = |colour: Value, stars: Value| {
            let reviews =
                json!({ "colour": colour, "reviews": [{ "reader": "Mara", "text": "fine", "stars": stars }] });
            render(0, &json!({ "book": null, "reviews": reviews, "problems": [] }), "productpage-v1")
        };
        let red = page(json!("red"), json!(4));
        assert!(red.contains("stars red") && red.contains("★★★★☆"), "{red}");
        assert!(!page(Value::Null, Value::Null).contains('★'));
    }

    #[test]
    fn what_services_say_is_text_never_markup() {
        let content = json!({ "problems": ["<script>alert('1')</script>"], "reader": "a\"b" });
        let page = render(0, &content, "x");
        assert!(!page.contains("<script>"));
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)"));
        assert!(page.contains("user=a&quot;b"));
    }

    #[test]
    fn the_page_names_everyone_who_took_part() {
        let page = render(1, &json!({ "problems": [] }), "productpage-v1, reviews-v2");
        assert!(page.contains("<b>productpage-v1</b> + <b>reviews-v2</b>"));
    }
}
