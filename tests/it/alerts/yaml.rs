//! The part of YAML that the files under `alerts/` are written in: block lists, block maps, scalars.

/// A node; maps keep the order they were made in.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// Quoted where YAML would read something else than this text.
    Text(String),
    /// Written as it is: numbers and durations.
    Plain(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

pub(crate) fn text(text: impl Into<String>) -> Node {
    Node::Text(text.into())
}

pub(crate) fn plain(value: impl ToString) -> Node {
    Node::Plain(value.to_string())
}

pub(crate) fn map<const N: usize>(entries: [(&str, Node); N]) -> Node {
    Node::Map(entries.map(|(key, node)| (key.to_owned(), node)).into())
}

/// The document of a map, behind comment lines that say where it comes from.
pub(crate) fn document(comment: &str, root: &Node) -> String {
    let mut to = comment.to_owned();
    write(root, 0, &mut to);
    to
}

fn write(node: &Node, depth: usize, to: &mut String) {
    let indent = "  ".repeat(depth);
    match node {
        Node::Map(entries) => {
            for (key, value) in entries {
                to.push_str(&format!("{indent}{key}:"));
                value_after_key(value, depth, to);
            }
        }
        Node::List(items) => {
            for item in items {
                let mut inner = String::new();
                write(item, depth + 1, &mut inner);
                // The first line of the item stands behind its dash.
                to.push_str(&format!("{indent}- {}", inner.trim_start()));
            }
        }
        scalar => to.push_str(&format!("{indent}{}\n", inline(scalar))),
    }
}

fn value_after_key(value: &Node, depth: usize, to: &mut String) {
    match value {
        Node::Map(_) | Node::List(_) => {
            to.push('\n');
            write(value, depth + 1, to);
        }
        Node::Text(lines) if lines.contains('\n') => {
            let indent = "  ".repeat(depth + 1);
            to.push_str(" |-\n");
            for line in lines.lines() {
                to.push_str(&format!("{indent}{line}\n"));
            }
        }
        scalar => to.push_str(&format!(" {}\n", inline(scalar))),
    }
}

fn inline(scalar: &Node) -> String {
    match scalar {
        Node::Text(text) if needs_quotes(text) => format!("'{}'", text.replace('\'', "''")),
        Node::Text(text) | Node::Plain(text) => text.clone(),
        Node::List(_) | Node::Map(_) => panic!("not a scalar: {scalar:?}"),
    }
}

/// Plain are only texts that begin with a letter and hold nothing that YAML gives a meaning.
fn needs_quotes(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let harmless = |c: char| c.is_ascii_alphanumeric() || " .,/()_+-=<>".contains(c);
    !begins
        || text.ends_with(' ')
        || words.contains(&text.to_ascii_lowercase().as_str())
        || !text.chars().all(harmless)
}

#[test]
fn what_yaml_would_read_otherwise_is_quoted() {
    let root = map([
        (
            "a",
            Node::List(vec![map([("b", text("yes")), ("c", plain(1))])]),
        ),
        ("d", text("it's: 5%\n{}")),
        ("e", text("it's")),
        ("f", text("0.5")),
        ("g", text("up == 0")),
    ]);
    let expected = "\
# where from
a:
  - b: 'yes'
    c: 1
d: |-
  it's: 5%
  {}
e: 'it''s'
f: '0.5'
g: up == 0
";
    assert_eq!(document("# where from\n", &root), expected);
}
