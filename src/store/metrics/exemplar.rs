//! One remembered request per classic bucket, so that a latency leads to a trace.
//!
//! A slot is a seqlock of six words. Writers that meet simply lose to each other: an exemplar is an
//! example, not a count.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// How long a slot keeps its exemplar before any other may replace it, unless that one is slower.
const KEEP_NANOS: u64 = 10_000_000_000;

/// The W3C trace position of a request whose span is kept somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// 16 bytes, never zero.
    pub trace_id: u128,
    /// 8 bytes, never zero.
    pub span_id: u64,
}

impl TraceContext {
    /// Reads a `traceparent` header and returns the position if its sampled flag is set.
    ///
    /// Anything malformed is `None`, as W3C Trace Context level 1 asks.
    pub fn sampled_from_traceparent(header: &str) -> Option<Self> {
        let (context, flags) = Self::from_traceparent(header)?;
        (flags & 1 == 1).then_some(context)
    }

    /// Reads a `traceparent` header: the position and the flags.
    pub(crate) fn from_traceparent(header: &str) -> Option<(Self, u8)> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str| {
            text.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let lengths =
            version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
        if !lengths || ![version, trace, span, flags].into_iter().all(hex) || version == "ff" {
            return None;
        }
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
        };
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (context.trace_id != 0 && context.span_id != 0).then_some((context, flags))
    }
}

/// What a slot holds, as an encoder reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exemplar {
    pub(crate) trace: TraceContext,
    /// In the smallest unit of the family.
    pub(crate) value: u64,
    pub(crate) unix_nanos: u64,
}

#[derive(Debug, Default)]
pub(crate) struct ExemplarSlot {
    version: AtomicU64,
    words: [AtomicU64; 5],
}

impl ExemplarSlot {
    pub(crate) fn offer(&self, trace: TraceContext, value: u64, unix_nanos: u64) {
        let [high, low, span, held_value, held_time] = &self.words;
        let version = self.version.load(Ordering::Relaxed);
        let age = unix_nanos.saturating_sub(held_time.load(Ordering::Relaxed));
        let keep = version != 0 && age < KEEP_NANOS && value <= held_value.load(Ordering::Relaxed);
        if version & 1 == 1 || keep {
            return;
        }
        let claimed = self.version.compare_exchange(
            version,
            version + 1,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if claimed.is_err() {
            return;
        }
        // Readers that see any of these words must see the odd version too.
        fence(Ordering::Release);
        let [high_half, low_half] = halves(trace.trace_id);
        high.store(high_half, Ordering::Relaxed);
        low.store(low_half, Ordering::Relaxed);
        span.store(trace.span_id, Ordering::Relaxed);
        held_value.store(value, Ordering::Relaxed);
        held_time.store(unix_nanos, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    pub(crate) fn read(&self) -> Option<Exemplar> {
        let before = self.version.load(Ordering::Acquire);
        if before == 0 || before & 1 == 1 {
            return None;
        }
        let [high, low, span, value, time] = self
            .words
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if self.version.load(Ordering::Relaxed) != before {
            return None;
        }
        let trace_id = whole([high, low]);
        Some(Exemplar {
            trace: TraceContext {
                trace_id,
                span_id: span,
            },
            value,
            unix_nanos: time,
        })
    }
}

pub(crate) fn halves(id: u128) -> [u64; 2] {
    let high = u64::try_from(id >> 64).unwrap_or(0);
    let low = u64::try_from(id & u128::from(u64::MAX)).unwrap_or(0);
    [high, low]
}

/// The number that [`halves`] came from.
pub(crate) fn whole([high, low]: [u64; 2]) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: TraceContext = TraceContext {
        trace_id: 7 << 64 | 9,
        span_id: 3,
    };

    #[test]
    fn a_slower_request_replaces_a_young_exemplar_and_a_faster_one_does_not() {
        let slot = ExemplarSlot::default();
        assert_eq!(slot.read(), None);
        slot.offer(TRACE, 50, 1);
        slot.offer(
            TraceContext {
                trace_id: 1,
                span_id: 1,
            },
            49,
            2,
        );
        assert_eq!(slot.read().unwrap().trace, TRACE);
        slot.offer(
            TraceContext {
                trace_id: 1,
                span_id: 1,
            },
            51,
            3,
        );
        assert_eq!(slot.read().unwrap().value, 51);
        slot.offer(TRACE, 1, 3 + KEEP_NANOS);
        assert_eq!(slot.read().unwrap().trace, TRACE);
    }

    #[test]
    fn only_a_sampled_wellformed_traceparent_counts() {
        let read = TraceContext::sampled_from_traceparent;
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read(good).unwrap().span_id, 0xb7ad_6b71_6920_3331);
        for bad in [
            "",
            "00",
            &good.replace("-01", "-00"),
            &good.replace("0af", "0AF"),
            &format!("{good}-x"),
            &good.replace("00-0af", "ff-0af"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-é0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
