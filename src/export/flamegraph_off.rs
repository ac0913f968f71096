//! Stands where the flame graph would be in a build without it.

use std::fmt;

use crate::store::profile::Profile;

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoFlamegraph(pub(crate) String);

impl fmt::Display for NoFlamegraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says that this build draws none.
///
/// # Errors
/// `NoFlamegraph`, always.
pub(crate) fn encode(_profile: &Profile, _title: &str) -> Result<Vec<u8>, NoFlamegraph> {
    Err(absent())
}

/// Says that this build draws none.
///
/// # Errors
/// `NoFlamegraph`, always.
pub(crate) fn encode_pair(
    _earlier: &Profile,
    _later: &Profile,
    _title: &str,
) -> Result<Vec<u8>, NoFlamegraph> {
    Err(absent())
}

fn absent() -> NoFlamegraph {
    NoFlamegraph(
        "flame graphs are not built in: enable the feature `flamegraph` of streamgate-agent, \
         or ask for format=folded"
            .to_owned(),
    )
}

/// The picture as it is, since there is none.
pub(crate) fn with_nonce(svg: &[u8], _nonce: &str) -> Vec<u8> {
    svg.to_vec()
}
