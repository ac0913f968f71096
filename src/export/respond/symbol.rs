//! Names of addresses, for tools that hold a profile without them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plane;
use super::message::{Reply, Request};
use super::query::shown;
use crate::catalog::endpoints::{self, TEXT};
use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::store::demand::Outcome;

/// What stands for a name that is not known.
const UNKNOWN: &str = "??";

/// Names of addresses: `0x1+0x2` in the body or, by GET, in the query.
pub(super) async fn symbol(
    plane: &Plane,
    request: &Request,
    body: &[u8],
) -> Result<Reply, Refusal> {
    let text = if request.method == "POST" {
        String::from_utf8_lossy(body)
    } else {
        request.query.as_str().into()
    };
    let words: Vec<&str> = text.split('+').filter(|word| !word.is_empty()).collect();
    if words.len() > config::SYMBOLS {
        let text = format!("at most {} addresses", config::SYMBOLS);
        return Err(Refusal::new(413, Reason::BodySize, text));
    }
    let addresses: Vec<Option<u64>> = words.iter().map(|word| address(word)).collect();
    let mut names: Vec<Option<Arc<str>>> = addresses
        .iter()
        .map(|address| known(plane, (*address)?))
        .collect();
    look_up(plane, &addresses, &mut names).await?;
    // The tool only wants to know that there are symbols at all.
    let mut out = String::from("num_symbols: 1\n");
    for ((word, address), name) in words.iter().zip(addresses).zip(names) {
        match address {
            Some(address) => out.push_str(&format!("{address:#x}")),
            None => out.extend(shown(word.trim()).escape_debug()),
        }
        out.push_str(&format!(" {}\n", name.as_deref().unwrap_or(UNKNOWN)));
    }
    Ok(Reply::new(200, TEXT, out.into_bytes()))
}

fn address(word: &str) -> Option<u64> {
    let hex = word.trim().strip_prefix("0x")?;
    u64::from_str_radix(hex, 16).ok()
}

/// The function that holds an address, if a profile has resolved it before.
fn known(plane: &Plane, address: u64) -> Option<Arc<str>> {
    let symbols = plane.store.symbols.get(address)?;
    // Innermost inlined function first; the code belongs to the last.
    let holder = symbols.last()?;
    Some(Arc::clone(&holder.function.name))
}

/// Has the addresses named that no profile has needed yet. Reading symbol tables is no work for
/// whoever carries the request.
async fn look_up(
    plane: &Plane,
    addresses: &[Option<u64>],
    names: &mut [Option<Arc<str>>],
) -> Result<(), Refusal> {
    let open = addresses.iter().zip(names.iter_mut());
    let open = open.filter_map(|(address, name)| Some(((*address)?, name)));
    let (wish, places): (Vec<u64>, Vec<&mut Option<Arc<str>>>) =
        open.filter(|(_, name)| name.is_none()).unzip();
    if wish.is_empty() || !endpoints::PROFILING || !plane.config.profiling {
        return Ok(());
    }
    let deadline = Instant::now() + config::SYMBOLS_WAIT;
    let demand = plane.store.names.ask(wish.into(), deadline);
    let demand = demand.map_err(|full| {
        let text = format!("symbol readers at limit {}", full.limit);
        Refusal::new(429, Reason::Readers, text).retry_after(Duration::from_secs(1))
    })?;
    // The profiling thread waits for wishes of profiles.
    plane.store.cpu.nudge();
    if let Outcome::Answered(found) = demand.await {
        for (place, name) in places.into_iter().zip(found.iter()) {
            place.clone_from(name);
        }
    }
    Ok(())
}
