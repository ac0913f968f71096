//! W3C trace context as it travels: `traceparent`, `tracestate` and `baggage`.
//!
//! Source: W3C Trace Context level 2 and W3C Baggage. What is malformed is not repaired: a `tracestate` or
//! `baggage` that breaks its grammar or its limits goes no further, and nothing of it is believed.

use crate::store::metrics::TraceContext;

/// The caller's bit for "this trace is kept".
pub(crate) const SAMPLED: u8 = 1;
/// The bit for "the trace id is random": ours are, and a caller's word is passed on.
pub(crate) const RANDOM: u8 = 2;

/// Bytes of `tracestate` that are passed on; the specification asks for at least 512.
const STATE_BYTES: usize = 512;
const STATE_MEMBERS: usize = 32;
/// What the specification asks to be passed on at least.
const BAGGAGE_BYTES: usize = 8_192;
const BAGGAGE_MEMBERS: usize = 64;

/// The span that a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) context: TraceContext,
    pub(crate) flags: u8,
}

impl Parent {
    /// Reads a `traceparent`; anything malformed is `None`.
    pub(crate) fn read(header: &str) -> Option<Self> {
        let (context, flags) = TraceContext::from_traceparent(header)?;
        let flags = flags & (SAMPLED | RANDOM);
        Some(Self { context, flags })
    }

    pub(crate) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Writes a `traceparent` of version 00.
pub(crate) fn traceparent(context: TraceContext, flags: u8) -> String {
    let TraceContext { trace_id, span_id } = context;
    format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
}

/// Whether a `tracestate` may be passed on.
pub(crate) fn is_tracestate(header: &str) -> bool {
    let mut keys: [&str; STATE_MEMBERS] = [""; STATE_MEMBERS];
    let mut count = 0;
    if header.len() > STATE_BYTES {
        return false;
    }
    for member in header
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
    {
        // Empty members are allowed and say nothing.
        if member.is_empty() {
            continue;
        }
        let Some((key, value)) = member.split_once('=') else {
            return false;
        };
        let known = keys.get(..count).unwrap_or_default();
        let Some(place) = is_state_key(key)
            .then_some(count)
            .filter(|_| is_state_value(value) && !known.contains(&key))
        else {
            return false;
        };
        match keys.get_mut(place) {
            Some(free) => *free = key,
            None => return false,
        }
        count += 1;
    }
    count > 0
}

fn is_state_key(key: &str) -> bool {
    let is_inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let first = key.bytes().next();
    let starts = first.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    starts && key.len() <= 256 && key.bytes().all(is_inner) && key.matches('@').count() <= 1
}

fn is_state_value(value: &str) -> bool {
    let is_inner = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    !value.is_empty() && value.len() <= 256 && value.bytes().all(is_inner) && !value.ends_with(' ')
}

/// Whether a `baggage` may be passed on.
pub(crate) fn is_baggage(header: &str) -> bool {
    let members = header.split(',');
    header.len() <= BAGGAGE_BYTES
        && members.clone().count() <= BAGGAGE_MEMBERS
        && members.into_iter().all(is_baggage_member)
}

fn is_baggage_member(member: &str) -> bool {
    let mut parts = member.split(';');
    let pair = parts.next().unwrap_or_default();
    let is_pair = |text: &str| {
        text.split_once('=')
            .is_some_and(|(key, value)| is_token(trimmed(key)) && is_baggage_value(trimmed(value)))
    };
    is_pair(pair) && parts.all(|property| is_token(trimmed(property)) || is_pair(property))
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn is_token(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_inner)
}

fn is_baggage_value(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
    text.bytes().all(is_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace_id in 1_u128.., span_id in 1_u64.., flags in 0_u8..4) {
            let context = TraceContext { trace_id, span_id };
            let header = traceparent(context, flags);
            prop_assert_eq!(header.len(), 55);
            prop_assert_eq!(Parent::read(&header), Some(Parent { context, flags }));
        }

        #[test]
        fn one_changed_byte_is_another_position_or_none(place in 0_usize..55, byte in any::<u8>()) {
            let context = TraceContext { trace_id: 0xa0b, span_id: 0xc0d };
            let good = traceparent(context, 3);
            let mut bad = good.clone().into_bytes();
            bad[place] = byte;
            let Ok(bad) = String::from_utf8(bad) else { return Ok(()); };
            let read = Parent::read(&bad);
            let hex = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let dash = [2, 35, 52].contains(&place);
            if bad != good && (dash || !hex) {
                prop_assert_eq!(read, None, "{}", bad);
            }
            if let Some(read) = read {
                prop_assert!(read.context.trace_id != 0 && read.context.span_id != 0);
            }
        }

        #[test]
        fn arbitrary_text_is_read_or_refused_and_never_panics(text in any::<String>()) {
            let read = Parent::read(&text);
            prop_assert!(read.is_none() || text.trim().len() >= 55);
            is_tracestate(&text);
            if is_baggage(&text) {
                prop_assert!(text.is_ascii());
            }
        }

        #[test]
        fn states_of_the_grammar_pass_whole(
            members in proptest::collection::btree_map("[a-z0-9][a-z0-9_*/-]{0,8}", "[!-+\\--<>-~]{1,8}", 1..12)
        ) {
            let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let state = members.join(",");
            prop_assert!(is_tracestate(&state), "{}", state);
            prop_assert!(!is_tracestate(&format!("{state},{}", members[0])), "the same key twice");
        }

        #[test]
        fn baggage_of_the_grammar_passes(
            members in proptest::collection::vec("[a-zA-Z0-9._-]{1,8} ?= ?[!#-+\\--:<-\\[\\]-~]{0,8}( ?; ?p=1)?", 1..20)
        ) {
            let header = members.join(" , ");
            prop_assert!(is_baggage(&header), "{}", header);
        }
    }

    #[test]
    fn a_later_version_may_say_more_and_00_may_not() {
        let header = traceparent(
            TraceContext {
                trace_id: 1,
                span_id: 2,
            },
            1,
        );
        assert!(Parent::read(&header).unwrap().is_sampled());
        assert_eq!(Parent::read(&format!("{header}-more")), None);
        let later = header.replacen("00-", "01-", 1);
        assert!(Parent::read(&format!("{later}-more")).is_some());
        assert_eq!(Parent::read(&format!("{later}more")), None);
        let flags = header.replace("-01", "-ff");
        assert_eq!(
            Parent::read(&flags).unwrap().flags,
            3,
            "what we do not know is not passed on"
        );
    }

    #[test]
    fn broken_states_and_baggage_go_no_further() {
        for good in [
            "a=1",
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "fw529a3039@dt=x, ,b=2",
            "0a=b",
        ] {
            assert!(is_tracestate(good), "{good}");
        }
        let long = format!("a={}", "x".repeat(257));
        let many = (0..33)
            .map(|n| format!("k{n}=v"))
            .collect::<Vec<_>>()
            .join(",");
        for bad in [
            "", ",", "a", "A=1", "a=", "=1", "a=b=c", "a=1,a=2", "a=é", &long, &many, "a@b@c=1",
        ] {
            assert!(!is_tracestate(bad), "{bad}");
        }
        for good in ["a=1", "userId=Am%C3%A9lie;p;q=2, x=", "k=a=b"] {
            assert!(is_baggage(good), "{good}");
        }
        let long = format!("a={}", "x".repeat(8_192));
        for bad in [
            "", "a", "a=1,", "a b=1", "a=\"1\"", "a=1;", "é=1", "a=\n", &long,
        ] {
            assert!(!is_baggage(bad), "{bad}");
        }
    }
}
