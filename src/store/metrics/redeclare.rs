//! A family that gets more labels, or its help, after it has begun.
//!
//! Only for families whose shape is not known before they are used. Series keep what they have: a label
//! that they do not know is empty for them, which is the same as absent.

use std::sync::Arc;

use super::family::Family;
use super::{Metrics, check_shape};
use crate::catalog::Metric;
use crate::error::Error;
use crate::store::sync::write;

impl Metrics {
    /// Declares a family that has no series yet.
    ///
    /// # Errors
    /// Out of range if its name is taken or its shape cannot be.
    pub(crate) fn declare(&self, metric: &Metric) -> Result<(), Error> {
        self.family(metric, |_| true, "any").map(drop)
    }

    /// Declares a family again, with the labels that it has and perhaps more after them; nothing happens if
    /// there is none of the name.
    ///
    /// # Errors
    /// Out of range if its kind, unit or labels are others.
    pub(crate) fn redeclare(&self, metric: &Metric) -> Result<(), Error> {
        check_shape(metric)?;
        let mut families = write(&self.families);
        let Some(family) = families.by_name.get(metric.name) else {
            return Ok(());
        };
        let held = &family.metric;
        let same = held.kind == metric.kind && held.unit == metric.unit;
        if !same || !metric.labels.starts_with(held.labels) {
            let range = format!(
                "the {:?} with labels {:?}, and more after them",
                held.kind, held.labels
            );
            return Err(Error::out_of_range("metric", range, metric.name));
        }
        let family = Family {
            metric: *metric,
            layout: family.layout,
            overflowed: Arc::clone(&family.overflowed),
            state: Arc::clone(&family.state),
        };
        families.by_name.insert(metric.name, Arc::new(family));
        Ok(())
    }
}
