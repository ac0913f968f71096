//! The pages for people: what the agent answers, and what Go's tools find.

use std::fmt::{self, Display};

use crate::catalog::endpoints::{self, Endpoint, HTML, Method};
use crate::export::respond::Plane;
use crate::export::respond::message::{Reply, Request};

/// No script, no picture, nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;\
padding:0 1rem;color:#1a1a1a;background:#fff}table{border-collapse:collapse;width:100%;margin:0 0 2rem}\
td,th{text-align:left;vertical-align:top;padding:.4rem .8rem .4rem 0;border-top:1px solid #ddd}\
a,th{white-space:nowrap}small{overflow-wrap:anywhere}code{font:14px/1.5 ui-monospace,monospace;white-space:pre-wrap;user-select:all}small{color:#555}\
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}a{color:#8ab4f8}\
td,th{border-color:#444}small{color:#aaa}}";

/// The agent's first page.
pub(super) fn agent(plane: &Plane, request: &Request) -> Reply {
    // The guard has let this Host through, so it is ours; escaped all the same.
    let host = request.list("host").unwrap_or_default();
    let rows: Vec<String> = endpoints::ALL.iter().map(|row| line(row, &host)).collect();
    let methods = endpoints::METHODS.map(|row| method(&row, &host));
    let version = if plane.config.version.is_empty() {
        String::new()
    } else {
        format!(" {}", Escaped(&plane.config.version))
    };
    let body = format!(
        "<h1>{service}{version}</h1>\n\
         <p>streamgate-agent {agent}, up {uptime}.</p>\n\
         {forms}<table>\n<tr><th>Path<th>What it gives<th>Command\n{rows}</table>\n\
         <table>\n<tr><th>{querier}<th>What Grafana gets, with this address as a data source of type Pyroscope\
         <th>Command\n{methods}</table>\n",
        service = Escaped(&plane.config.service),
        agent = env!("CARGO_PKG_VERSION"),
        forms = forms(plane, "debug/pprof/profile"),
        uptime = uptime(plane.started.elapsed().as_secs()),
        rows = rows.concat(),
        querier = endpoints::QUERIER,
        methods = methods.concat(),
    );
    page(&plane.config.service, &body)
}

/// The list that Go serves at this path.
pub(super) fn profiles(plane: &Plane) -> Reply {
    let served = endpoints::ALL.iter().filter_map(|row| {
        let name = row.path.strip_prefix("/debug/pprof/")?;
        (!name.is_empty()).then(|| {
            format!(
                "<tr><td><a href=\"{name}{query}\">{name}</a><td>{views}<td>{help}\n",
                query = Escaped(query(row)),
                views = views(row, name),
                help = Escaped(row.help)
            )
        })
    });
    let absent = endpoints::ABSENT.iter().filter_map(|row| {
        let name = row.path.strip_prefix("/debug/pprof/")?;
        Some(format!(
            "<tr><td>{name}<td><td>Absent: {}.\n",
            Escaped(row.reason)
        ))
    });
    let rows: Vec<String> = served.chain(absent).collect();
    let body = format!(
        "<h1>Profiles</h1>\n\
         {}<table>\n<tr><th>Profile<th>In the browser<th>What it gives\n{}</table>\n",
        forms(plane, "profile"),
        rows.concat()
    );
    page(&plane.config.service, &body)
}

/// Links to the profile in each of its forms, with what opens it: of the seconds to come and, where
/// they are held, of those that are over.
fn forms(plane: &Plane, path: &str) -> String {
    let holds = plane.config.profiling && plane.config.recorder > 0;
    let link = |query: &str, word: &str, text: &str| {
        format!("<a href=\"{path}?{query}&amp;format={word}\">{text}</a>")
    };
    let rows = endpoints::FORMS.iter().map(|form| {
        let past = if holds {
            let past = link("ago=60&amp;seconds=60", form.word, "last minute");
            format!("<td>{past}")
        } else {
            String::new()
        };
        format!(
            "<tr><td>{title}<td>{next}{past}<td>{opens}\n",
            next = link("seconds=5", form.word, "next 5 s"),
            title = Escaped(form.title),
            opens = Escaped(form.opens),
        )
    });
    let rows: Vec<String> = rows.collect();
    let past = if holds { "<th>At once" } else { "" };
    format!(
        "<table>\n<tr><th>CPU profile<th>To wait for{past}<th>What opens it\n{}</table>\n",
        rows.concat()
    )
}

/// The query of an endpoint's command: what is worth a look, where the bare path would be a long wait
/// or a file for a tool.
fn query(row: &Endpoint) -> &'static str {
    let (_, rest) = row.command.split_once('?').unwrap_or_default();
    let (query, _) = rest.split_once('\'').unwrap_or((rest, ""));
    let start = row.command.len() - rest.len();
    let with_mark = start.saturating_sub(1)..start + query.len();
    if query.is_empty() {
        ""
    } else {
        row.command.get(with_mark).unwrap_or_default()
    }
}

/// Links to what a browser shows of a profile.
fn views(row: &Endpoint, name: &str) -> String {
    let mut views = Vec::new();
    let mut link = |query: &str, text: &str| {
        views.push(format!("<a href=\"{name}?{query}\">{text}</a>"));
    };
    if row.parameters.contains("debug=1") {
        link("debug=1", "text");
    }
    if row.parameters.contains("2 (each") {
        link("debug=2", "one by one");
    }
    if row.parameters.contains("format=") {
        let waits = row.command.contains("seconds=5");
        let seconds = if waits { "seconds=5&amp;" } else { "" };
        link(&format!("{seconds}format=svg"), "flame graph");
    }
    views.join(", ")
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
        "<tr><td><a href=\"{target}{query}\">{path}</a><td>{help}{parameters}<td><code>{command}</code>\n",
        path = row.path,
        query = Escaped(query(row)),
        help = Escaped(row.help),
        command = Escaped(&command),
    )
}

fn method(row: &Method, host: &str) -> String {
    let command = format!(
        "curl -H 'content-type: application/json' -d '{request}' http://{host}{querier}{name}",
        request = row.request,
        querier = endpoints::QUERIER,
        name = row.name,
    );
    format!(
        "<tr><td>{name}<td>{help}<td><code>{command}</code>\n",
        name = row.name,
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
