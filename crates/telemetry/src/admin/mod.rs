//! How does a process answer questions about itself? With a table of commands, served over HTTP/1.1.
//!
//! Paths, the help text and the pages for unknown paths and methods have the form of Envoy's admin interface. Handlers
//! are plain functions that run on the thread that serves; they see the query and return the whole answer.

mod query;
mod server;

use std::borrow::Cow;

pub use http::{Method, StatusCode};
pub use query::Query;
pub use server::{Limits, serve};

use crate::render::push;

/// `text/plain; charset=UTF-8`, the type of most answers.
pub const PLAIN: &str = "text/plain; charset=UTF-8";
/// `application/json`.
pub const JSON: &str = "application/json";
/// `text/html; charset=UTF-8`.
pub const HTML: &str = "text/html; charset=UTF-8";

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path without the query, repeated slashes merged.
    pub path: String,
    /// The query.
    pub query: Query,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The content type.
    pub content_type: &'static str,
    /// The whole body.
    pub body: String,
}

impl Answer {
    /// 200 with text.
    #[must_use]
    pub fn text(body: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, content_type: PLAIN, body: body.into() }
    }

    /// 200 with JSON.
    #[must_use]
    pub fn json(body: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, content_type: JSON, body: body.into() }
    }

    /// Another status with text.
    #[must_use]
    pub fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: PLAIN, body: body.into() }
    }
}

/// What a command does to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only reads; any method will do.
    Reads,
    /// It changes something; only POST will do.
    Changes,
}

/// A query parameter in the help text.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// One command.
pub struct Command<C> {
    /// Its path: `/stats`.
    pub path: &'static str,
    /// One line for the help text.
    pub help: &'static str,
    /// Whether it needs POST.
    pub effect: Effect,
    /// Its query parameters.
    pub parameters: &'static [Parameter],
    /// The answer.
    pub handler: fn(&C, &Request) -> Answer,
}

/// The commands of a process over its context `C`.
pub struct Commands<C> {
    title: &'static str,
    context: C,
    commands: Vec<Command<C>>,
}

impl<C> Commands<C> {
    /// A table; the help text lists the commands in the order of their paths. `/` and `/help` are added.
    #[must_use]
    pub fn new(title: &'static str, context: C, mut commands: Vec<Command<C>>) -> Self {
        commands.sort_by_key(|command| command.path);
        Self { title, context, commands }
    }

    /// Answers a request.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Answer {
        match request.path.as_str() {
            "/" => {
                return Answer { content_type: HTML, ..Answer::text(self.home_page()) };
            }
            "/help" => return Answer::text(self.help()),
            _ => {}
        }
        let Some(command) = self.commands.iter().find(|command| command.path == request.path) else {
            return Answer::error(StatusCode::NOT_FOUND, format!("invalid path. {}", self.help()));
        };
        if command.effect == Effect::Changes && request.method != Method::POST {
            let body = format!("Method {} not allowed, POST required.", request.method);
            return Answer::error(StatusCode::METHOD_NOT_ALLOWED, body);
        }
        (command.handler)(&self.context, request)
    }

    /// `admin commands are:` and a line for each command and each of its parameters.
    #[must_use]
    pub fn help(&self) -> String {
        let mut out = String::from("admin commands are:\n");
        for (path, help, effect, parameters) in self.listed() {
            let post = if effect == Effect::Changes { " (POST)" } else { "" };
            push!(out, "  {path}{post}: {help}\n");
            for parameter in parameters {
                push!(out, "      {}: {}\n", parameter.name, parameter.help);
            }
        }
        out
    }

    fn listed(&self) -> Vec<(&'static str, &'static str, Effect, &'static [Parameter])> {
        let own = [
            ("/", "Admin home page", Effect::Reads, [].as_slice()),
            ("/help", "print out list of admin commands", Effect::Reads, [].as_slice()),
        ];
        let mut all: Vec<_> = self
            .commands
            .iter()
            .map(|command| (command.path, command.help, command.effect, command.parameters))
            .chain(own)
            .collect();
        all.sort_by_key(|(path, ..)| *path);
        all
    }

    /// Links to what can be read, buttons for what changes something.
    fn home_page(&self) -> String {
        let title = escaped(self.title);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<title>{title}</title>\n<style>\n\
             body {{ font-family: sans-serif; }}\ntd {{ padding: 4px 12px; text-align: left; }}\n\
             tr:nth-child(even) {{ background-color: #eeeeee; }}\nform {{ margin: 0; }}\n</style>\n</head>\n<body>\n\
             <table>\n<thead><tr><td>Command</td><td>Description</td></tr></thead>\n<tbody>\n"
        );
        for (path, help, effect, _) in self.listed() {
            let name = escaped(path.trim_start_matches('/'));
            let help = escaped(help);
            match effect {
                // Relative, so that the page also works behind a prefix.
                Effect::Reads => push!(out, "<tr><td><a href='{name}'>{name}</a></td><td>{help}</td></tr>\n"),
                Effect::Changes => push!(
                    out,
                    "<tr><td><form action='{name}' method='post'><button>{name}</button></form></td>\
                     <td>{help}</td></tr>\n"
                ),
            }
        }
        out.push_str("</tbody>\n</table>\n</body>\n</html>\n");
        out
    }
}

fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['&', '<', '>', '\'', '"']) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('\'', "&#39;").replace('"', "&quot;").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Commands<&'static str> {
        let ready = Command {
            path: "/ready",
            help: "print server state",
            effect: Effect::Reads,
            parameters: &[],
            handler: |state: &&'static str, _: &Request| Answer::text(format!("{state}\n")),
        };
        let fail = Command {
            path: "/healthcheck/fail",
            help: "fail <health> checks",
            effect: Effect::Changes,
            parameters: &[Parameter { name: "why", help: "the reason" }],
            handler: |_: &&'static str, request: &Request| {
                Answer::text(format!("OK {}\n", request.query.get("why").unwrap_or_default()))
            },
        };
        Commands::new("Admin", "LIVE", vec![ready, fail])
    }

    fn ask(method: Method, target: &str) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        commands().answer(&Request { method, path: path.into(), query: Query::parse(query) })
    }

    const HELP: &str = "admin commands are:\n  /: Admin home page\n  /healthcheck/fail (POST): fail <health> checks\n      \
                        why: the reason\n  /help: print out list of admin commands\n  /ready: print server state\n";

    #[test]
    fn a_command_that_reads_answers_to_any_method() {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            assert_eq!(ask(method, "/ready?x=1"), Answer::text("LIVE\n"));
        }
    }

    #[test]
    fn a_command_that_changes_something_wants_post() {
        let refused = ask(Method::GET, "/healthcheck/fail");
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.body, "Method GET not allowed, POST required.");
        assert_eq!(ask(Method::POST, "/healthcheck/fail?why=a%20b"), Answer::text("OK a b\n"));
    }

    #[test]
    fn an_unknown_path_is_answered_with_the_help_text() {
        for path in ["/nope", "/ready/", "ready", ""] {
            let answer = ask(Method::GET, path);
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(answer.body, format!("invalid path. {HELP}"));
        }
        assert_eq!(ask(Method::GET, "/help"), Answer::text(HELP));
    }

    #[test]
    fn the_home_page_links_and_escapes() {
        let page = ask(Method::GET, "/");
        assert_eq!(page.content_type, HTML);
        assert!(page.body.contains("<a href='ready'>ready</a>"));
        assert!(page.body.contains("<form action='healthcheck/fail' method='post'>"));
        assert!(page.body.contains("fail &lt;health&gt; checks"));
    }
}
