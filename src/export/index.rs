//! The pages for people: what the agent answers, and what Go's tools find.

use std::fmt::{self, Display};

use crate::catalog::endpoints::{self, Endpoint, HTML};
use crate::export::respond::Plane;
use crate::export::respond::message::{Reply, Request};

/// No script, no picture, nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
padding:0 1rem;color:#1a1a1a;background:#fff}table{border-collapse:collapse;width:100%}\
td,th{text-align:left;vertical-align:top;padding:.4rem .8rem .4rem 0;border-top:1px solid #ddd}\
code{font:14px/1.5 ui-monospace,monospace;white-space:pre-wrap;user-select:all}small{color:#555}\
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}a{color:#8ab4f8}\
td,th{border-color:#444}small{color:#aaa}}";

/// The agent's first page.
pub(super) fn agent(plane: &Plane, request: &Request) -> Reply {
    // The guard has let this Host through, so it is ours; escaped all the same.
    let host = request.list("host").unwrap_or_default();
    let rows: Vec<String> = endpoints::ALL.iter().map(|row| line(row, &host)).collect();
    let version = if plane.config.version.is_empty() {
        String::new()
    } else {
        format!(" {}", Escaped(&plane.config.version))
    };
    let body = format!(
        "<h1>{service}{version}</h1>\n\
         <p>streamgate-agent {agent}, up {uptime}.</p>\n\
         {forms}<table>\n<tr><th>Path<th>What it gives<th>Command\n{rows}</table>\n",
        service = Escaped(&plane.config.service),
        agent = env!("CARGO_PKG_VERSION"),
        forms = forms("debug/pprof/profile"),
        uptime = uptime(plane.started.elapsed().as_secs()),
        rows = rows.concat(),
    );
    page(&plane.config.service, &body)
}

/// The list that Go serves at this path.
pub(super) fn profiles(plane: &Plane) -> Reply {
    let served = endpoints::ALL.iter().filter_map(|row| {
        let name = row.path.strip_prefix("/debug/pprof/")?;
        (!name.is_empty()).then(|| {
            format!(
                "<tr><td><a href=\"{name}\">{name}</a><td>{}\n",
                Escaped(row.help)
            )
        })
    });
    let absent = endpoints::ABSENT.iter().filter_map(|row| {
        let name = row.path.strip_prefix("/debug/pprof/")?;
        Some(format!(
            "<tr><td>{name}<td>Absent: {}.\n",
            Escaped(row.reason)
        ))
    });
    let rows: Vec<String> = served.chain(absent).collect();
    let body = format!(
        "<h1>Profiles</h1>\n\
         {}<table>\n<tr><th>Profile<th>What it gives\n{}</table>\n",
        forms("profile"),
        rows.concat()
    );
    page(&plane.config.service, &body)
}

/// A link to the profile in each of its forms, with what opens it.
fn forms(path: &str) -> String {
    let rows = endpoints::FORMS.iter().map(|form| {
        format!(
            "<tr><td><a href=\"{path}?seconds=5&amp;format={word}\">{title}</a><td>{opens}\n",
            word = form.word,
            title = Escaped(form.title),
            opens = Escaped(form.opens),
        )
    });
    let rows: Vec<String> = rows.collect();
    format!(
        "<table>\n<tr><th>CPU of the next 5 s<th>What opens it\n{}</table>\n",
        rows.concat()
    )
}

fn line(row: &Endpoint, host: &str) -> String {
    // Relative, so that the page works under a prefix of a host's router too.
    let target = row.path.strip_prefix('/').unwrap_or(row.path);
    let target = if target.is_empty() { "." } else { target };
    let parameters = if row.parameters.is_empty() {
        String::new()
    } else {
        format!("<br><small>{}</small>", Escaped(row.parameters))
    };
    let command = row.command.replace("{host}", host);
    format!(
        "<tr><td><a href=\"{target}\">{path}</a><td>{help}{parameters}<td><code>{command}</code>\n",
        path = row.path,
        help = Escaped(row.help),
        command = Escaped(&command),
    )
}

fn page(title: &str, body: &str) -> Reply {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n{body}",
        Escaped(title)
    );
    Reply::new(200, HTML, text.into_bytes()).with("Content-Security-Policy", POLICY)
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Text inside HTML, in content and in attributes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}
