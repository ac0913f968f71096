//! What child spans of one place in the host are called: each statement and cache says it once.

use std::sync::{Arc, RwLock};

use crate::store::sync::{read, write};

/// Places that are kept apart; the spans of further ones are called `_OTHER`.
const SITES: usize = 4_096;

/// The number of a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Site(u32);

/// What the spans of a place have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteNames {
    pub(crate) name: String,
    pub(crate) attributes: Vec<(&'static str, String)>,
    /// Whether something outside of the process does the work.
    pub(crate) is_client: bool,
}

#[derive(Debug)]
pub(crate) struct Sites(RwLock<Vec<Arc<SiteNames>>>);

impl Default for Sites {
    fn default() -> Self {
        let other = SiteNames {
            name: "_OTHER".to_owned(),
            attributes: Vec::new(),
            is_client: false,
        };
        Self(RwLock::new(vec![Arc::new(other)]))
    }
}

impl Sites {
    /// The place of these names, known from now on.
    pub(crate) fn add(&self, names: SiteNames) -> Site {
        let mut sites = write(&self.0);
        let known = sites.iter().position(|held| **held == names);
        let number = known.unwrap_or(sites.len());
        if known.is_none() {
            if sites.len() > SITES {
                return Site::default();
            }
            sites.push(Arc::new(names));
        }
        u32::try_from(number).map_or_else(|_| Site::default(), Site)
    }

    pub(crate) fn get(&self, site: Site) -> Option<Arc<SiteNames>> {
        let number = usize::try_from(site.0).ok()?;
        read(&self.0).get(number).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: usize) -> SiteNames {
        SiteNames {
            name: name.to_string(),
            attributes: Vec::new(),
            is_client: true,
        }
    }

    #[test]
    fn places_beyond_the_limit_are_other_and_known_ones_stay() {
        let sites = Sites::default();
        let all: Vec<Site> = (0..SITES + 2).map(|name| sites.add(named(name))).collect();
        assert_eq!(
            sites.get(all[SITES - 1]).unwrap().name,
            (SITES - 1).to_string()
        );
        assert_eq!(sites.get(all[SITES]).unwrap().name, "_OTHER");
        assert_eq!(sites.add(named(5)), all[5]);
    }
}
