//! The profile types that are answered, by the ids that Grafana knows.

use super::fields::invalid;
use crate::export::guard::Refusal;
use crate::export::wire::Message;
use crate::store::heap::{ALLOC_OBJECTS, ALLOC_SPACE, INUSE_OBJECTS, INUSE_SPACE, SPACE};
use crate::store::profile::{CPU, ValueType};

/// What a profile is of, and which of its values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProfileType {
    /// As Pyroscope's clients name it.
    pub(crate) name: &'static str,
    pub(crate) column: ValueType,
    period: ValueType,
}

const fn memory(column: ValueType) -> ProfileType {
    ProfileType {
        name: "memory",
        column,
        period: SPACE,
    }
}

/// Every type. Grafana turns the CPU's and those of what was allocated into rates.
pub(crate) static ALL: [ProfileType; 5] = [
    ProfileType {
        name: "process_cpu",
        column: CPU,
        period: CPU,
    },
    memory(INUSE_SPACE),
    memory(INUSE_OBJECTS),
    memory(ALLOC_SPACE),
    memory(ALLOC_OBJECTS),
];

impl ProfileType {
    pub(crate) fn id(&self) -> String {
        let Self {
            name,
            column,
            period,
        } = self;
        let parts = [name, column.name, column.unit, period.name, period.unit];
        parts.join(":")
    }

    /// The type of an id.
    ///
    /// # Errors
    /// With the ids that there are.
    pub(crate) fn of_id(field: &'static str, id: &str) -> Result<&'static Self, Refusal> {
        ALL.iter().find(|kind| kind.id() == id).ok_or_else(|| {
            let ids: Vec<String> = ALL.iter().map(Self::id).collect();
            invalid(field, &ids.join("|"), id)
        })
    }

    pub(crate) fn is_cpu(&self) -> bool {
        self.column == CPU
    }

    pub(crate) fn message(&self) -> Message {
        let mut out = Message::default();
        for (number, text) in [
            (1, &*self.id()),
            (2, self.name),
            (4, self.column.name),
            (5, self.column.unit),
            (6, self.period.name),
            (7, self.period.unit),
        ] {
            out.bytes(number, text.as_bytes());
        }
        out
    }

    /// The labels that all samples of this type have, as Pyroscope's servers derive them.
    pub(crate) fn labels(&self, service: &str) -> [(&'static str, String); 7] {
        [
            ("__name__", self.name.to_owned()),
            ("__period_type__", self.period.name.to_owned()),
            ("__period_unit__", self.period.unit.to_owned()),
            ("__profile_type__", self.id()),
            ("__type__", self.column.name.to_owned()),
            ("__unit__", self.column.unit.to_owned()),
            ("service_name", service.to_owned()),
        ]
    }
}
